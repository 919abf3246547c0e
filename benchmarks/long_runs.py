"""Does memory stay flat over 10,000 steps, 1,000 batches of images and 1,000 runs?

    python benchmarks/long_runs.py                       # all
    python benchmarks/long_runs.py steps --json long.json

Each case runs in a process of its own on Lite0 at 32 px, so that ten thousand steps take minutes,
and reads its resident memory (Linux) in ten equal parts. A leak of one activation, graph or hook a
step would add up to megabytes a part. What a row reports is the growth from the second part on:
the first one warms caches and allocators up.
"""

import argparse
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from report import markdown, write

import featviz as fv
from featviz import callbacks

SIZE = 32
PARTS = 10


def resident() -> float:
    """Return the resident memory of this process in MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class Sampler(callbacks.Callback):
    """Read the memory at the end of each part of a run."""

    def __init__(self) -> None:
        self.memory: list[float] = []

    def on_step(self, step: callbacks.Step) -> None:
        if (step.index + 1) % (step.run.steps // PARTS) == 0:
            self.memory.append(resident())


def steps(count: int = 10_000, **options: object) -> list[float]:
    """One run of many steps, with a prior, network noise and TensorBoard."""
    sampler = Sampler()
    with tempfile.TemporaryDirectory() as folder:
        board = callbacks.TensorBoard(folder, every=count // 20)
        model = fv.load("efficientnet_lite0")
        fv.render(model, "class:285", size=SIZE, steps=count, callbacks=[board, sampler], **options)
    return sampler.memory


def untraced(count: int = 2_000) -> list[float]:
    """The same where the trace does not apply: every step runs the network with its hooks."""
    return steps(count, redirect=count)


def parts(run: Callable[[int], object], count: int = 1_000) -> list[float]:
    """Call ``run`` many times and read the memory after each tenth."""
    memory = []
    for k in range(count):
        run(k)
        if (k + 1) % (count // PARTS) == 0:
            memory.append(resident())
    return memory


def batches(count: int = 1_000) -> list[float]:
    """One examples pass over a thousand batches of two images that are made on the way."""
    memory = []

    def images() -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        for k in range(2 * count):
            yield torch.rand(3, 64, 64, generator=generator)
            if (k + 1) % (2 * count // PARTS) == 0:
                memory.append(resident())

    model = fv.load("efficientnet_lite0")
    fv.examples(model, images(), ["channel:_blocks.0:5", "channel:_blocks.1:3"], batch_size=2)
    return memory


def runs() -> list[float]:
    """A thousand renders of two steps with one model: hooks, traces and caches of each."""
    model = fv.load("efficientnet_lite0")
    return parts(lambda k: fv.render(model, f"channel:_blocks.2:{k % 16}", size=SIZE, steps=2))


def attributions() -> list[float]:
    """Two hundred attributions by relevance propagation with one model."""
    model = fv.load("efficientnet_lite0")
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    goal = "channel:_blocks.4:5"
    return parts(lambda _: fv.attribute(model, image, goal, method="lrp"), 200)


CASES = {case.__name__: case for case in (steps, untraced, batches, runs, attributions)}


def apart(case: str) -> dict:
    """Run a case in a process of its own."""
    command = [sys.executable, __file__, "--case", case]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help="of: " + ", ".join(CASES))
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.case:
        started = time.perf_counter()
        memory = CASES[options.case]()
        print(json.dumps({"memory": memory, "seconds": time.perf_counter() - started}))
        return
    rows = {name: apart(name) for name in options.cases or CASES}
    head = ["case", "after a tenth, MiB", "after a fifth", "at the end", "growth from then", "s"]
    table = [
        [
            name,
            *(f"{row['memory'][k]:.0f}" for k in (0, 1, -1)),
            f"{row['memory'][-1] - row['memory'][1]:+.1f}",
            f"{row['seconds']:.0f}",
        ]
        for name, row in rows.items()
    ]
    print(markdown(head, table))
    write(options.json, "cpu", cases=rows)


if __name__ == "__main__":
    main()
