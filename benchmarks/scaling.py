"""How many units a minute does featviz render, in one process and in two?

    python benchmarks/scaling.py                                     # 8 and 64 units, 128 px
    python benchmarks/scaling.py --units 8 64 512 --json scaling.json

The same number of threads either way: one process with all of them, or several with one thread
each and an equal share of the units (channels of one layer; once those are used up, again with
other seeds). The clock starts when every process has loaded the network and made one step, and
stops when the last one has finished its render.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from networks import NETWORKS, load
from report import markdown, write

import featviz as fv


def work(network: str, layer: str, first: int, stop: int, size: int, steps: int) -> None:
    """Load, say so, wait for a line, render units ``first`` to ``stop``, say so."""
    model = load(network)
    units = model.layer(layer).units
    goals = [fv.channel(layer, i % units) for i in range(first, stop)]
    fv.render(model, goals[0], size=size, steps=1)
    print("ready", flush=True)
    sys.stdin.readline()
    fv.render(model, goals, size=size, steps=steps, seed=list(range(first, stop)))
    print("done", flush=True)


def seconds(options, units: int, processes: int, threads: int) -> float:
    """Render ``units`` units in ``processes`` processes of ``threads`` threads each."""
    layer = NETWORKS[options.network].layer(options.layer)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    workers = []
    try:
        for index in range(processes):
            first, stop = (units * i // processes for i in (index, index + 1))
            case = options.network, layer, first, stop, options.size, options.steps
            workers.append(
                subprocess.Popen(
                    [sys.executable, __file__, "--worker", json.dumps(case)],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        _expect(workers, "ready")
        begun = time.perf_counter()
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        _expect(workers, "done")
        return time.perf_counter() - begun
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _expect(workers: list, word: str) -> None:
    for worker in workers:
        if worker.stdout.readline().strip() != word:
            raise SystemExit(f"a process ended before it was {word}; its error is above")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--processes", type=int, default=2, help="and as many threads")
    parser.add_argument("--network", choices=NETWORKS, default="lite0")
    parser.add_argument("--layer", default="middle", help="early, middle, late or a name")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(*json.loads(options.worker))
        return
    if min(options.units) < options.processes:
        parser.error(f"--units must be at least {options.processes}, one for each process")
    many = options.processes
    found = []
    for units in options.units:
        for processes, threads in ((1, many), (many, 1)):
            taken = seconds(options, units, processes, threads)
            row = {"units": units, "processes": processes, "threads": threads, "seconds": taken}
            found.append({**row, "units_per_minute": 60 * units / taken})
            settings = {k: getattr(options, k) for k in ("network", "layer", "size", "steps")}
            write(options.json, "cpu", settings=settings, cases=found)
            print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    head = ("units", "processes", "threads each", "seconds", "units a minute")
    rows = [
        (*list(row.values())[:3], *(f"{v:.1f}" for v in list(row.values())[3:])) for row in found
    ]
    print(f"{options.network}, {options.layer}, {options.size} px, {options.steps} steps")
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
