"""How many steps, and seconds, until an image is what 512 steps make of it?

    python benchmarks/fewer_steps.py --classes 285 985 207 963 779 340
    python benchmarks/fewer_steps.py --channels --steps 32 64 128 256 512

A run of each length, with the learning rate that its length gets and a schedule of its own: the
score of the finished image and the probability of its class by Lite1 and Lite2, which had no part
in it, each as a share of those after the most steps. Prints where the mean shares reach
``--share``, interpolated between the lengths.
"""

import argparse
import time
from pathlib import Path

import torch
from recognition import CLASSES, JUDGES, judge
from report import machine, markdown, write

import featviz as fv

CHANNELS = ("_blocks.4:7", "_blocks.7:29", "_blocks.10:11", "_blocks.10:71", "_blocks.13:81")


def reached(steps: list[int], shares: list[float], share: float) -> float | None:
    """Return the number of steps at which ``shares`` first reach ``share``."""
    before = None
    for count, value in zip(steps, shares, strict=True):
        if value >= share:
            if before is None:
                return float(count)
            start, low = before
            return start + (count - start) * (share - low) / (value - low)
        before = count, value
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=list(CLASSES[:6]))
    parser.add_argument("--channels", action="store_true", help="inner units instead of classes")
    parser.add_argument("--steps", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--share", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = fv.load(JUDGES[0])
    goals = [fv.class_logit(c) for c in options.classes]
    if options.channels:
        goals = [fv.objective(f"channel:{unit}") for unit in CHANNELS]
    rows = []
    for steps in sorted(options.steps):
        begun = time.perf_counter()
        made = fv.render(model, goals, quality=options.quality, steps=steps, seed=options.seed)
        row = {"steps": steps, "seconds": (time.perf_counter() - begun) / len(goals)}
        row["scores"] = made.scores.tolist()
        if not options.channels:
            judged = [judge(name, made.images, options.classes) for name in JUDGES[1:]]
            row["probability"] = sum(j["probability"] for j in judged) / len(judged)
        print(row, flush=True)
        rows.append(row)
    best = torch.tensor(rows[-1]["scores"])
    shares = {"score": [float((torch.tensor(r["scores"]) / best).mean()) for r in rows]}
    if not options.channels:
        shares["recognition"] = [r["probability"] / rows[-1]["probability"] for r in rows]
    print(", ".join(f"{k} {v}" for k, v in machine().items()))
    table = [
        (r["steps"], f"{r['seconds']:.1f}", *(f"{values[k]:.2f}" for values in shares.values()))
        for k, r in enumerate(rows)
    ]
    print(markdown(("steps", "s an image", *shares), table))
    counts = [r["steps"] for r in rows]
    for name, values in shares.items():
        count = reached(counts, values, options.share)
        where = "not reached" if count is None else f"after {count:.0f} steps"
        print(f"{options.share:.0%} of the {name} of {counts[-1]} steps: {where}")
    write(options.json, "cpu", goals=[str(g) for g in goals], rows=rows, shares=shares)


if __name__ == "__main__":
    main()
