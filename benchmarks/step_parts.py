"""What do network noise, the prior, the price on roughness and focus add to a step?

    python benchmarks/step_parts.py                         # a class of Lite0, four images
    python benchmarks/step_parts.py --batch 1 --rounds 9 --json parts.json

The same render with each of them on and off, in turns whose order rotates with every round, as in
``step_time.py``, whose clock it uses: the median over the rounds of the median over a round's
steps; a ratio is the median of the ratios within a round.
"""

import argparse
import statistics
from pathlib import Path

import torch
from report import machine, markdown, write
from step_time import Featviz, in_turns

import featviz as fv

WARP = "pad:0:blur,jitter:0.07,rotate:10,scale:0.75:1.15,noise:0.04"
NOISE = f"{WARP},channel_noise:0.07,branch_noise:0.1"
CASES = {
    "warp alone": {"transforms": WARP, "prior": 0, "focus": 0},
    "and network noise": {"transforms": NOISE, "prior": 0, "focus": 0},
    "and prior and roughness": {"transforms": NOISE, "focus": 0},
    "and focus: the default": {"transforms": NOISE},
    "the prior without network noise": {"transforms": WARP, "focus": 0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="timed steps of a round")
    parser.add_argument("--skip", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = fv.load("efficientnet_lite0")
    goals = [fv.class_logit(90 * i + 15) for i in range(options.batch)]
    loops = {}
    for name, settings in CASES.items():
        loops[name] = Featviz(model, "output", range(options.batch), **settings)
        loops[name].goals = goals
    rounds = in_turns(loops, options)
    first = next(iter(rounds.values()))
    rows = [
        (
            name,
            f"{statistics.median(ms):.1f}",
            f"{min(ms):.1f}–{max(ms):.1f}",
            f"{statistics.median(a / b for a, b in zip(ms, first, strict=True)):.3f}",
        )
        for name, ms in rounds.items()
    ]
    print(", ".join(f"{k} {v}" for k, v in machine().items()))
    print(markdown(("", "ms an image and step", "spread", "times the first"), rows))
    write(options.json, "cpu", ms=rounds, batch=options.batch)


if __name__ == "__main__":
    main()
