"""What each set of settings buys: recognition, spectrum, contrast, Fréchet distance, time.

Renders class logits of a network with each set of settings and measures: whether the other two
networks see the class (top-1, mean probability); the share of luminance power above 0.15 cycles a
pixel; the share of clipped values; the standard deviation of values; with --photographs, the
Fréchet distance of the images' features in the network that is named last to those of photographs;
with --units, how many inner units the images activate more than the best photograph does.

    python benchmarks/quality.py                               # twelve classes, every preset
    python benchmarks/quality.py --classes 50 --only standard lucid-style dreamlens --save sheets/
    python benchmarks/quality.py --classes 50 --only standard --model all   # all six pairs
    python benchmarks/quality.py --ingredients                 # the default without each ingredient
    python benchmarks/quality.py --only standard --units 60 --photographs photographs/

``benchmarks/photographs.py`` makes such a folder.
"""

import argparse
import time
from pathlib import Path

import torch
from picture_makers import INGREDIENTS, MAKERS, OURS, SETTINGS
from picture_measures import (
    NETWORKS,
    clipped,
    features,
    floor,
    frechet,
    high_frequencies,
    photographs,
    recognition,
)
from report import markdown, write

import featviz as fv
from featviz.io.sheets import sheet

#: Spread over the 1,000 classes: animals, plants, things, buildings, vehicles, food, scenes.
_FIFTY = """
285 985 1 130 207 309 340 407 497 751 920 963 7 22 39 71 88 105
148 151 235 254 291 292 323 347 366 385 402 417 421 437 444 483 508 541
562 574 629 671 701 717 779 805 847 866 879 937 950 980
"""
CLASSES = tuple(map(int, _FIFTY.split()))
LAYERS = ("_blocks.4", "_blocks.10", "_blocks.13")


def inner_units(model: fv.Model, count: int) -> list[fv.Objective]:
    """Random channels of an early, a middle and a late layer, by turns."""
    generator = torch.Generator().manual_seed(0)
    goals = []
    for k in range(count):
        layer = LAYERS[k % len(LAYERS)]
        unit = torch.randint(model.layer(layer).units, (), generator=generator)
        goals.append(fv.channel(layer, int(unit)))
    return goals


def super_stimuli(model: fv.Model, result: fv.Result, folder: Path) -> str:
    """How many units the images activate more than the best photograph does."""
    best = fv.examples(model, folder, list(result.objectives), k=1).top.values[:, 0]
    return f"{int((result.scores > best).sum())}/{len(result)}"


def save(images: torch.Tensor, labels: list[str], path: Path, columns: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(images, labels, columns=columns).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=[NETWORKS[0]], help=", ".join(NETWORKS))
    parser.add_argument("--classes", type=int, default=12, help="how many of the list")
    parser.add_argument("--only", nargs="+", help=f"sets of settings: {', '.join(MAKERS)}")
    parser.add_argument("--ingredients", action="store_true")
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--units", type=int, default=0, help="inner units against photographs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="a folder for contact sheets")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    names = options.only or list(INGREDIENTS if options.ingredients else SETTINGS)
    unknown = [name for name in names if name not in MAKERS]
    if unknown:
        parser.error(f"no settings {unknown[0]!r}; known: {', '.join(MAKERS)}")
    networks = NETWORKS if options.model == ["all"] else options.model
    classes = list(CLASSES[: options.classes])
    real = photographs(options.photographs) if options.photographs else None
    rows = []
    for network in networks:
        model = fv.load(network)
        judges = [name for name in NETWORKS if name != network]
        real_features = None if real is None else features(real, judges[-1])
        for name in names:
            begun = time.perf_counter()
            images = MAKERS[name](model, classes, options.seed)
            seconds = (time.perf_counter() - begun) / len(classes)
            row = [name, network.removeprefix("efficientnet_")]
            for judge in judges:
                top, probability = recognition(images, classes, judge)
                row.append(f"{judge.removeprefix('efficientnet_')}: {top}, {probability:.2f}")
            row += [f"{high_frequencies(images):.3f}", f"{clipped(images):.3f}"]
            row += [f"{float(images.std()):.2f}", f"{seconds:.1f}"]
            if real_features is not None:
                row.append(f"{frechet(features(images, judges[-1]), real_features):.0f}")
            label = name.replace(" ", "_")
            if options.units and name in OURS:
                goals = inner_units(model, options.units)
                inner = fv.render(model, goals, seed=options.seed, **OURS[name])
                row.append(super_stimuli(model, inner, options.photographs))
                if options.save:
                    texts = [str(goal) for goal in goals]
                    save(inner.images, texts, options.save / f"{label}_{network}_units.png", 10)
            print(row, flush=True)
            rows.append(row + [""] * (bool(options.units) and name not in OURS))
            if options.save:
                texts = [f"class:{c}" for c in classes]
                save(images, texts, options.save / f"{label}_{network}.png", 6)
        if real_features is not None:
            by_chance = floor(real_features, len(classes))
            print(
                f"{network}: {len(classes)} of the {len(real_features)} photographs are "
                f"{by_chance:.0f} from the others"
            )
    head = ["settings", "network", f"of {len(classes)}", ""]
    head += ["above 0.15", "clipped", "deviation", "s an image"]
    head += ["Fréchet"] if real is not None else []
    head += ["above the best photograph"] if options.units else []
    print(markdown(head, rows))
    write(options.json, "cpu", head=head, rows=rows)


if __name__ == "__main__":
    main()
