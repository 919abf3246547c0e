"""How much memory does a dream need above the loaded network?

    python benchmarks/dream_memory.py                       # 4096 x 4096 in tiles of 512 pixels
    python benchmarks/dream_memory.py --side 1024 --octaves 4 --steps 10

In a process of its own: the network is loaded, an image of 32 px warms up, the peak is set back
(Linux, /proc/self/clear_refs), and the dream, its input included, raises it. The figure is that
rise in resident memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from memory import _UNIT, _settle
from report import write

import featviz as fv


def measure(options: argparse.Namespace) -> dict:
    """Dream in this process; return the rise of the peak in MiB and the seconds it took."""
    model = fv.load("efficientnet_lite0")
    goal = fv.layer(options.layer)
    fv.dream(model, torch.rand(3, 32, 32), goal, octaves=1, steps=1)
    before = _settle()
    begun = time.perf_counter()
    picture = torch.rand(3, options.side, options.side)
    given = {"octaves": options.octaves, "steps": options.steps, "tile": options.tile}
    made = fv.dream(model, picture, goal, **given)
    seconds = time.perf_counter() - begun
    rise = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT - before
    assert made.images.shape[2:] == picture.shape[1:]
    return {"side": options.side, **given, "mib": rise / 2**20, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--octaves", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--layer", default="_blocks.4")
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options)))
        return
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--here"], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    row = json.loads(done.stdout.splitlines()[-1])
    picture = 3 * 4 * options.side**2 / 2**20
    print(f"{row['mib']:.0f} MiB above the network, {row['mib'] / picture:.1f} times the image")
    print(f"{row['seconds']:.1f} s")
    write(options.json, "cpu", **row)


if __name__ == "__main__":
    main()
