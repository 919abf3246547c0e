"""Kill an atlas again and again: are images lost, doubled, or other ones?

    python benchmarks/atlas_kill.py --kills 10
    python benchmarks/atlas_kill.py --kills 10 --workers 2
    python benchmarks/atlas_kill.py --kills 1 --ray

Lite0, one layer. One run goes through; another gets ``kill -9`` (with all its processes) at random
moments, a number of times, and is then let go through. With ``--ray`` a cluster of two cores is
started here, and it is a worker that is killed. Both folders are then read shard by shard: the same
keys, none doubled, images equal to the byte.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
from report import machine, write

PORT = 6398


def command(folder: Path, options: argparse.Namespace) -> list[str]:
    line = [sys.executable, "-m", "featviz", "atlas", "efficientnet_lite0", "-o", str(folder)]
    line += ["--layers", options.layer, "--units", options.units, "--steps", str(options.steps)]
    line += ["--size", str(options.size), "--batch", str(options.batch)]
    if options.ray:
        return [*line, "--ray", f"127.0.0.1:{PORT}"]
    return [*line, "--workers", str(options.workers)]


def pictures(folder: Path) -> tuple[dict[tuple, bytes], int]:
    """Return the stored images by key, and how many keys are there more than once."""
    found, count = {}, Counter()
    for path in folder.glob("pictures/*/*.parquet"):
        for row in pq.read_table(path).to_pylist():
            key = row["objective"], row["seed"], row["settings_hash"]
            found[key] = row["image"]["bytes"]
            count[key] += 1
    return found, sum(n > 1 for n in count.values())


def run_through(folder: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Return after how many seconds the first shard was there, and all."""
    begun = time.perf_counter()
    process = subprocess.Popen(command(folder, options))
    first = 0.0
    while process.poll() is None:
        if not first and any(folder.glob("pictures/*/*.parquet")):
            first = time.perf_counter() - begun
        time.sleep(0.05)
    assert process.returncode == 0
    return first, time.perf_counter() - begun


def kill_runs(folder: Path, options: argparse.Namespace, first: float, whole: float) -> list[int]:
    """Start, and kill about when a shard is written; return how many there were after each kill."""
    chance = random.Random(options.seed)
    stored = []
    for _ in range(options.kills):
        process = subprocess.Popen(
            command(folder, options), start_new_session=True, stdout=subprocess.DEVNULL
        )
        time.sleep(chance.uniform(0.8 * first, first + 0.2 * (whole - first)))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        stored.append(len(list(folder.glob("pictures/*/*.parquet"))))
    return stored


def kill_worker(folder: Path, options: argparse.Namespace) -> list[int]:
    """Start a run on the cluster and kill a worker after the first shard."""
    process = subprocess.Popen(command(folder, options), stdout=subprocess.DEVNULL)
    killed = []
    while process.poll() is None:
        count = len(list(folder.glob("pictures/*/*.parquet")))
        if count > len(killed) and len(killed) < options.kills:
            # Ray names its processes after what they do.
            named = [
                int(path.parent.name)
                for path in Path("/proc").glob("[0-9]*/cmdline")
                if path.read_bytes().startswith(b"ray::_Worker")
            ]
            if named:
                os.kill(named[0], signal.SIGKILL)
                killed.append(count)
        time.sleep(0.1)
    assert process.returncode == 0
    return killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--layer", default="_blocks.4")
    parser.add_argument("--units", default="0:20")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(machine())
    tool = str(Path(sys.executable).with_name("ray"))
    with tempfile.TemporaryDirectory() as place:
        a, b = Path(place) / "whole", Path(place) / "killed"
        if options.ray:
            os.environ["RAY_AUTH_MODE"] = "disabled"
            line = [tool, "start", "--head", "--num-cpus=2", f"--port={PORT}"]
            line += ["--include-dashboard=false", "--disable-usage-stats"]
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        try:
            first, whole = run_through(a, options)
            if options.ray:
                stored = kill_worker(b, options)
            else:
                stored = kill_runs(b, options, first, whole)
                subprocess.run(command(b, options), check=True)
        finally:
            if options.ray:
                subprocess.run([tool, "stop", "--force"], stdout=subprocess.DEVNULL)
        (expected, _), (found, doubled) = pictures(a), pictures(b)
    same = sum(found.get(key) == content for key, content in expected.items())
    print(f"uninterrupted: {len(expected)} images in {whole:.0f} s")
    print(f"shards after each kill: {stored}")
    print(
        f"afterwards: {len(found)} images, {len(expected.keys() - found.keys())} lost, "
        f"{len(found.keys() - expected.keys())} others, {doubled} doubled, {same} equal to the byte"
    )
    settings = {k: v for k, v in vars(options).items() if k != "json"}
    result = {"whole": len(expected), "found": len(found), "doubled": doubled, "equal": same}
    write(options.json, "cpu", settings=settings, shards=stored, **result)


if __name__ == "__main__":
    main()
