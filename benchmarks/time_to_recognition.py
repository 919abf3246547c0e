"""How long until other networks recognize a class, against 256 steps of a lucid-style loop?

    python benchmarks/time_to_recognition.py                     # twelve classes, about ten minutes
    python benchmarks/time_to_recognition.py --quality fast standard best --json out.json

Class logits of EfficientNet-Lite0, ``--together`` at a time, the loops in turns, so that a slow
minute of the machine strikes all. Judges are Lite1 and Lite2, which had no part in it.
"""

import argparse
import time
from pathlib import Path

import torch
from networks import load
from peers import LucidStyle
from recognition import CLASSES, JUDGES, judge
from report import markdown, write

import featviz as fv


def lucid(model: fv.Model, classes: list[int], steps: int, seed: int) -> torch.Tensor:
    """Return images of a lucid-style loop, whose own randomness is seeded."""
    torch.manual_seed(seed)
    loop = LucidStyle(model, "_fc", classes)
    loop.times(steps, 0)
    with torch.no_grad():
        return torch.cat([images() for images, _ in loop.parts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=list(CLASSES))
    parser.add_argument("--quality", nargs="+", default=["fast"])
    parser.add_argument("--steps", type=int, default=256, help="of the lucid-style loop")
    parser.add_argument("--together", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args()
    model = load("lite0")
    names = ["lucid-style", *options.quality]
    pictures: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    seconds = dict.fromkeys(names, 0.0)
    for start in range(0, len(options.classes), options.together):
        classes = options.classes[start : start + options.together]
        for name in names:
            begun = time.perf_counter()
            if name == "lucid-style":
                made = lucid(model, classes, options.steps, options.seed + start)
            else:
                goals = [fv.class_logit(c) for c in classes]
                made = fv.render(model, goals, quality=name, seed=options.seed + start).images
            seconds[name] += time.perf_counter() - begun
            pictures[name].append(made)
    count, rows, found = len(options.classes), [], []
    for name in names:
        images = torch.cat(pictures[name])
        judged = [judge(j, images, options.classes) for j in JUDGES[1:]]
        each = seconds[name] / count
        share = seconds["lucid-style"] / seconds[name]
        cells = [f"{j['top1']}/{count} ({j['probability']:.2f})" for j in judged]
        rows.append((name, f"{each:.2f}", f"1/{share:.1f}", *cells))
        found.append({"name": name, "seconds": each, "share": share, "judges": judged})
    head = ("loop", "seconds an image", "of lucid-style", "Lite1 top-1 (p)", "Lite2 top-1 (p)")
    print(markdown(head, rows))
    write(options.json, "cpu", classes=options.classes, loops=found)


if __name__ == "__main__":
    main()
