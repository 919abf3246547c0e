"""Where does the time go from starting a process to the first image on the disk?

    python benchmarks/first_picture.py                     # 64 and 256 steps, three processes each
    python benchmarks/first_picture.py --steps 64 --repeats 5 --json first.json

Each case is a process of its own, which does what ``featviz render`` does with a class of
EfficientNet-Lite0 and takes the time of each part. Figures are medians over the processes, in
seconds. *Tracing* includes the comparison of the trace with the network. *Redirected* steps are the
first 16, in which dead ReLUs let a gradient pass.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import machine, markdown, write

REDIRECTED = 16
PARTS = (
    "import torch",
    "import featviz",
    "load the network",
    "table of layers",
    "tracing",
    "redirected steps",
    "other steps",
    "scores and the rest",
    "write the file",
)


def parts(steps: int, objective: str, begun: float) -> dict[str, float]:
    """Render in this process, and return the seconds of each part."""
    found: dict[str, float] = {}
    last = begun

    def mark(name: str) -> None:
        nonlocal last
        here = time.time()
        found[name] = found.get(name, 0.0) + here - last
        last = here

    import torch  # noqa: F401

    mark("import torch")
    import featviz as fv
    from featviz.optim import tracing

    fv.render  # noqa: B018 - submodules are imported when they are asked for
    mark("import featviz")
    model = fv.load("efficientnet_lite0")
    mark("load the network")
    model.layers()
    mark("table of layers")
    trace, seconds = tracing.trace, 0.0

    def timed(*args, **kwargs):
        nonlocal seconds
        start = time.time()
        made = trace(*args, **kwargs)
        seconds += time.time() - start
        return made

    def step(state: fv.callbacks.Step) -> None:
        if state.index in (REDIRECTED - 1, steps - 1):
            mark("other steps" if state.index >= REDIRECTED else "redirected steps")

    tracing.trace = timed
    result = fv.render(model, objective, steps=steps, seed=0, callbacks=[step])
    mark("scores and the rest")
    # It happens before the first step.
    found["tracing"] = seconds
    found["redirected steps"] -= seconds
    with tempfile.TemporaryDirectory() as folder:
        result.save(Path(folder, "picture.png"))
    mark("write the file")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--objective", default='class:"Egyptian cat"')
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(parts(options.steps[0], options.objective, options.child)))
        return
    cases: dict[int, dict[str, float]] = {}
    for steps in options.steps:
        runs = []
        for _ in range(options.repeats):
            command = [sys.executable, __file__, "--steps", str(steps)]
            command += ["--objective", options.objective, "--child", repr(time.time())]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        cases[steps] = {part: statistics.median(run[part] for run in runs) for part in PARTS}
        cases[steps]["all"] = statistics.median(sum(run.values()) for run in runs)
    head = ["", *(f"{steps} steps, s" for steps in cases), *(f"share of {s}" for s in cases)]
    rows = [
        [part, *(f"{case[part]:.2f}" for case in cases.values())]
        + [f"{case[part] / case['all']:.0%}" for case in cases.values()]
        for part in (*PARTS, "all")
    ]
    print(", ".join(f"{k} {v}" for k, v in machine().items()))
    print(markdown(head, rows))
    write(options.json, "cpu", seconds=cases)


if __name__ == "__main__":
    main()
