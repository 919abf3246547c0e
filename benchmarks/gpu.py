"""Everything that a GPU has to show, in one command of at most eight minutes.

    python benchmarks/gpu.py --json gpu.json             # any CUDA device
    python benchmarks/gpu.py --dry-run                   # every section once, tiny, on the CPU
    python benchmarks/gpu.py --only steps layer

Sections, in this order; one that runs out of its time says so, and the table and the file have what
was measured until then:

    steps      milliseconds an image and step, and times the bare pass: the loops of ``peers.py``,
               featviz untraced, traced and compiled, by precision and batch, with the peak memory
    syncs      whether a step waits for the device, by torch's own debug mode and by the profiler
    equality   how far images are from the CPU's after 1, 8 and 32 steps
    layer      a whole layer of Lite0 at 256 steps, in images a minute
    others     PGD against foolbox, integrated gradients against captum, where they are installed
    tests      the tests that need a CUDA device
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import torch
from gpu_sections import SECTIONS, Clock, Row
from report import machine, markdown, write

import featviz as fv

#: Seconds that each section may take.
LIMITS = {"steps": 200, "syncs": 20, "equality": 40, "layer": 90, "others": 60, "tests": 60}
#: What torch multiplies in: tf32 is fp32 with the mantissa of fp16.
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
GOAL = "goals: compiled at most 1.15 of the bare pass; 300 images of the layer a minute on an H100"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS)
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, every section once")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="write the figures after every section")
    options = parser.parse_args()
    if options.dry_run:
        options.device = "cpu"
    elif not torch.cuda.is_available():
        parser.error("no CUDA device here; --dry-run runs every section on the CPU")
    options.size = 64 if options.dry_run else None
    options.batches = (1, 2) if options.dry_run else (1, 8, 32, 128, 512)
    options.precisions = ("fp32", "bf16") if options.dry_run else PRECISIONS
    options.points = 4 if options.dry_run else 50  # of integrated gradients
    options.compiled = (2,) if options.dry_run else (8, 128)
    options.steps, options.skip = (2, 1) if options.dry_run else (10, 5)
    options.layer_steps = 34 if options.dry_run else 256

    warnings.simplefilter("ignore", fv.FeatvizWarning)
    print(", ".join(f"{k} {v}" for k, v in machine(options.device).items()))
    found: dict[str, list[Row]] = {}
    failed = False
    for name in options.only or SECTIONS:
        start, clock, rows = time.perf_counter(), Clock(LIMITS[name]), []
        try:
            for row in SECTIONS[name](options, clock):
                rows.append(row)
                print(name, *row.values(), flush=True)
        except Exception as error:  # the other sections still have something to show
            failed = True
            rows.append({"failed": " ".join(f"{type(error).__name__}: {error}".split())[:200]})
            print(name, rows[-1], file=sys.stderr)
            if options.dry_run:
                raise
        found[name] = rows
        late = ", out of time" if clock.over else ""
        print(f"\n{name} ({time.perf_counter() - start:.0f} s{late})")
        head = list(dict.fromkeys(key for row in rows for key in row))
        print(markdown(head, [[row.get(key, "") for key in head] for row in rows]) + "\n")
        write(options.json, options.device, sections=found)
    print(GOAL)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
