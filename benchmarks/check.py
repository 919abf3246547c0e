"""What do good and bad images score by each criterion of ``fv.check``? Sets its thresholds.

    python benchmarks/check.py stamps/ --json out.json      # a quarter of an hour on a core

Twelve units of EfficientNet-Lite0 of different depth, rendered by default and, as planted bad
images, with single pixels and no transforms. Two more are planted by exchange: the image of
another unit of the list (for ``path`` and ``strength``: it is what a fooling circuit shows) and
the same image in place of the one of permuted weights (for ``randomized``).
"""

import argparse
import math
import statistics
import time
from pathlib import Path

import torch
from report import markdown, write

import featviz as fv
from featviz.checks import randomization
from featviz.checks.judges import panel
from featviz.checks.natural_images import NaturalImages
from featviz.checks.verdicts import NAMES
from featviz.optim.evaluator import scores

UNITS = (
    "channel:_blocks.1:3",
    "channel:_blocks.2:7",
    "channel:_blocks.4:5",
    "channel:_blocks.4:21",
    "channel:_blocks.7:11",
    "channel:_blocks.10:5",
    "channel:_blocks.10:42",
    "channel:_blocks.13:100",
    "class:130",
    "class:285",
    "class:751",
    "class:963",
)


def exchanged(model: fv.Model, checks: fv.Checks, images: str, seed: int) -> dict[str, list[float]]:
    """Judge every image as if it were the next unit's, by what natural images say."""
    goals = [fv.objective(c.objective) for c in checks]
    natural = NaturalImages.of(model, goals, images, 9, precision="fp32", progress=False)
    others = [checks[(i + 1) % len(checks)] for i in range(len(checks))]
    pictures = torch.stack([c.picture for c in others])
    pairs = zip(goals, pictures, strict=True)
    values = torch.stack([scores(model, g, p[None])[0] for g, p in pairs])
    shown = torch.stack([torch.stack([s.image for s in _seeds(c)]) for c in others])
    negatives = torch.stack([c.company["negative"][0].image[None] for c in others])
    judged = {
        "strength": natural.strengths(values),
        "interpretability": natural.interpretability(shown, negatives, panel(model, None)),
        "path": natural.paths(pictures),
    }
    found = {
        name: [math.nan if c.value is None else c.value for c in criteria]
        for name, criteria in judged.items()
    }
    drawn = torch.stack([natural.found.cache[j] for j in natural.found.drawn])
    near = [natural.paths(image[None].expand(len(goals), -1, -1, -1)) for image in drawn]
    found["path of random images"] = [
        c.value for criteria in near for c in criteria if c.value is not None
    ]
    return found


def _seeds(check: fv.Check) -> list:
    return [*check.company["picture"], *check.company["seeds"]]


def column(checks: fv.Checks, name: str) -> list[float]:
    values = [c[name].value for c in checks]
    return [math.nan if v is None else v for v in values]


def span(values: list[float]) -> str:
    fine = sorted(v for v in values if math.isfinite(v))
    if not fine:
        return "–"
    return f"{fine[0]:.2f} / {statistics.median(fine):.2f} / {fine[-1]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help="a folder of natural images")
    parser.add_argument("--units", nargs="+", default=list(UNITS))
    parser.add_argument("--quality", default="fast")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="write the sheets")
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args()
    model = fv.load("efficientnet_lite0")
    common = {"images": options.images, "quality": options.quality, "seed": options.seed}
    begun = time.perf_counter()
    good = fv.check(model, options.units, **common)
    seconds = time.perf_counter() - begun
    bad = fv.check(model, options.units, param="pixel", transforms="none", seeds=1, **common)
    swapped = exchanged(model, good, options.images, options.seed)
    same = [
        randomization.compare(
            c.picture,
            c.picture,
            score=c.score,
            base=c["held_out"].figures["scrambled"],
            reached=c.score,
            seeds=c.picture[None],
        ).value
        for c in good
    ]
    for title, checks in (("default", good), ("pixels without transforms", bad)):
        rows = [[c.objective, *(f"{column([c], n)[0]:.2f}" for n in NAMES)] for c in checks]
        print(f"\n{title}, {checks.settings['steps']} steps\n")
        print(markdown(["unit", *NAMES], rows))
    rows = [
        [n, span(column(good, n)), span(column(bad, n)), span(swapped.get(n, []))] for n in NAMES
    ]
    rows[NAMES.index("randomized")][3] = span([v for v in same if v is not None])
    print(f"\nleast / median / most of {len(good)} units\n")
    print(markdown(["criterion", "default", "pixels, no transforms", "exchanged"], rows))
    print(f"path of random images: {span(swapped['path of random images'])}")
    print(f"{seconds / len(good):.1f} s a unit, {good.settings['images']} images")
    if options.save:
        good.save(options.save)
    write(
        options.json,
        "cpu",
        default=good.record,
        pixels=bad.record,
        exchanged=swapped,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
