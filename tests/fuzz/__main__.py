"""``python -m tests.fuzz --count 5000 [--seed 0] [--json report.json]``: a long run."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from tests.fuzz import cases
from tests.fuzz.session import worker

#: Shares of the kinds among the inputs.
KINDS = {
    "command line": 8,
    "call": 6,
    "settings": 3,
    "image": 3,
    "array": 2,
    "atlas": 3,
    "text": 4,
    "program": 1,
}
#: Inputs that one process tries before another one goes on.
CHUNK = 500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=sorted(KINDS))
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    kinds = [options.kind] if options.kind else list(KINDS)
    total = sum(KINDS[k] for k in kinds)
    seen: dict[str, set[str]] = {kind: set() for kind in kinds}
    verdicts: collections.Counter = collections.Counter()
    failures: dict[str, list[str]] = {}
    slowest, started, seed = 0.0, time.monotonic(), options.seed
    context = multiprocessing.get_context("spawn")
    for kind in kinds:
        wanted = -(-options.count * KINDS[kind] // total)
        empty = 0
        while len(seen[kind]) < wanted and empty < 5:
            before, seed = len(seen[kind]), seed + 1
            ours, theirs = context.Pipe()
            process = context.Process(
                target=worker, args=(kind, min(CHUNK, wanted - before), seed, theirs)
            )
            process.start()
            theirs.close()
            current = None
            while True:
                try:
                    message = ours.recv() if ours.poll(cases.LIMIT + 40) else "silent"
                except EOFError:
                    message = "gone"
                if message is None:
                    break
                if isinstance(message, str):
                    _kill(process)
                    reason = (
                        "hang of the process"
                        if message == "silent"
                        else f"ended with {process.exitcode}"
                    )
                    failures.setdefault(f"{kind}: {reason}", []).append(str(current))
                    verdicts[kind, "failed"] += 1
                    break
                text, done = message
                current = text
                if done is None or text in seen[kind]:
                    continue
                seen[kind].add(text)
                verdicts[kind, done[0]] += 1
                slowest = max(slowest, done[2])
                if done[0] == "failed":
                    failures.setdefault(f"{kind}: {done[1]}", []).append(text)
            _kill(process)
            empty = empty + 1 if len(seen[kind]) == before else 0
        _print(kind, verdicts, len(seen[kind]))
    count = sum(map(len, seen.values()))
    bad = sum(n for (_, verdict), n in verdicts.items() if verdict == "failed")
    print(
        f"{count} distinct inputs, {bad} failures, slowest {slowest:.1f} s, {time.monotonic() - started:.0f} s in all"
    )
    for reason, texts in sorted(failures.items(), key=lambda item: -len(item[1])):
        print(f"\n{len(texts)} x {reason}")
        for text in texts[:3]:
            print(f"    {text[:400].encode(errors='backslashreplace').decode()}")
    if options.json:
        rows = {f"{kind} {verdict}": n for (kind, verdict), n in sorted(verdicts.items())}
        Path(options.json).write_text(
            json.dumps({"distinct": count, "verdicts": rows, "failures": failures}, indent=1)
        )
    return 1 if bad else 0


def _kill(process) -> None:
    process.join(5)
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()


def _print(kind: str, verdicts: collections.Counter, distinct: int) -> None:
    counts = ", ".join(f"{verdicts[kind, v]} {v}" for v in ("accepted", "refused", "failed"))
    print(f"{kind}: {distinct} distinct: {counts}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
