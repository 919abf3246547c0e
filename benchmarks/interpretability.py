"""Machine interpretability of every channel of a layer, by examples and by pictures.

    python benchmarks/interpretability.py /usr/share/tuxpaint/stamps --layer _blocks.10
    python benchmarks/interpretability.py FOLDER --units 0:16 --examples-only

For each channel of EfficientNet-Lite0 another network decides which of two held-out images excites
it, from its examples, and from three pictures with its negative. Printed: quartiles of the score
over the channels, the mean accuracy with its standard error, the correlation of both, and the
same for a planted unit without meaning, one pixel's last bits, in which the truth is chance.
"""

import argparse
from pathlib import Path

import torch
from report import machine, markdown, write

import featviz as fv


def meaningless(images: torch.Tensor) -> torch.Tensor:
    """A number that looks random and depends on the last bits of one pixel only."""
    return (images[:, 0, 100, 100].double() * 1e6).sin().float()


def drawn(model: fv.Model, goals: list, quality: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Three pictures of each goal (units, 3, C, H, W), and its negative (units, 1, C, H, W)."""
    count = len(goals)
    made = fv.render(model, [*goals * 3, *(-g for g in goals)], quality=quality,
                     seed=[*[0] * count, *[1] * count, *[2] * count, *[0] * count])  # fmt: skip
    pictures = made.images.unflatten(0, (4, count)).transpose(0, 1)
    return pictures[:, :3], pictures[:, 3:]


def row(name: str, found) -> list[str]:
    low, middle, high = found.scores.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    accuracy = float(found.accuracy.mean())
    error = (accuracy * (1 - accuracy) / (found.tasks * len(found.scores))) ** 0.5
    share = float((found.accuracy > 0.5 + 2 * (0.25 / found.tasks) ** 0.5).float().mean())
    return [
        name,
        f"{low:.2f} / {middle:.2f} / {high:.2f}",
        f"{accuracy:.3f} ± {error:.3f}",
        f"{share:.0%}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--layer", default="_blocks.10")
    parser.add_argument("--judge", default="efficientnet_lite2")
    parser.add_argument("--units", help="first:last; by default all")
    parser.add_argument("--quality", default="fast")
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--examples-only", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = fv.load("efficientnet_lite0")
    first, last = map(int, (options.units or f"0:{model.layer(options.layer).units}").split(":"))
    goals = [fv.channel(options.layer, unit) for unit in range(first, last)]
    common = {"judge": options.judge, "tasks": options.tasks, "progress": False}
    score = fv.recipes.machine_interpretability
    by_examples = score(model, options.images, goals, **common)
    nothing = score(model, options.images, fv.function(meaningless, "image"), **common)
    rows = [row("examples", by_examples), row("examples of a meaningless unit", nothing)]
    figures = {"examples": by_examples.scores.tolist()}
    if not options.examples_only:
        pictures, negative = drawn(model, goals, options.quality)
        by_pictures = score(
            model, options.images, goals, pictures=pictures, negative=negative, **common
        )
        others = score(
            model, options.images, goals, pictures=pictures.roll(1, 0),
            negative=negative.roll(1, 0), **common,
        )  # fmt: skip
        rows += [row("pictures", by_pictures), row("pictures of the next channel", others)]
        figures["pictures"] = by_pictures.scores.tolist()
        figures["exchanged"] = others.scores.tolist()
    print(", ".join(f"{k} {v}" for k, v in machine().items()))
    print(f"{len(goals)} channels of {options.layer}, {options.tasks} tasks each")
    print(markdown(("explained by", "score, quartiles", "accuracy", "clearly above chance"), rows))
    if not options.examples_only:
        both = torch.stack([by_examples.scores, by_pictures.scores])
        print(f"correlation of the scores: {float(torch.corrcoef(both)[0, 1]):.2f}")
    write(options.json, "cpu", **figures)


if __name__ == "__main__":
    main()
