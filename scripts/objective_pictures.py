"""Make the images of docs/objectives.md: one a row of its table, and three figures.

    python scripts/objective_pictures.py               # all
    python scripts/objective_pictures.py table sums    # some of: table, sums, diversity

Everything is rendered on EfficientNet-Lite0 with featviz's defaults.
"""

import sys
from pathlib import Path

import torch
from skimage import data

import featviz as fv
from featviz.io import images, sheets
from featviz.objectives.matching import gram

FOLDER = Path(__file__).parent.parent / "docs" / "images"
LAYER = "_blocks.10"


def photograph() -> torch.Tensor:
    """Return scikit-image's cat, (3, 300, 300) in [0, 1]."""
    return torch.tensor(data.chelsea()).movedim(-1, 0)[:, :, 75:375].float() / 255


def table(model: fv.Model) -> None:
    """Render one image for every row of the table, 160 px, named by its kind."""
    cat = photograph()
    unit = fv.channel(LAYER, 5)
    vector = model.activations(cat[None], ["_blocks.10"])["_blocks.10"].mean((2, 3))[0]
    other = torch.zeros(112)
    other[5] = 1
    rows: dict[str, fv.Objective] = {
        "channel": unit,
        "neuron": fv.neuron(LAYER, 5),
        "layer": fv.layer(LAYER),
        "head": fv.head(LAYER, 2, 4),
        "direction": fv.direction(LAYER, vector, cosine_power=2),
        "angled_direction": fv.angled_direction(LAYER, vector, other),
        "class": fv.class_logit("Egyptian cat"),
        "log_probability": fv.log_probability("Egyptian cat"),
        "probability": fv.probability("Egyptian cat"),
        "multiscale_variation": unit - 10 * fv.multiscale_variation(),
        "total_variation": unit - 1e-3 * fv.total_variation(),
        "l1": unit - 1e-3 * fv.l1(0.5),
        "l2": unit - 0.3 * fv.l2(0.5),
        "blur": unit - 0.05 * fv.blur(),
        "boundary_complexity": unit - 0.05 * fv.boundary_complexity(),
        "spectrum": unit - 0.1 * fv.spectrum(),
        "activation_difference": fv.activation_difference(LAYER, to=cat),
        "feature_match": 100 * fv.feature_match("_blocks.4", cat),
        "caricature": fv.caricature(LAYER, cat),
        "style_match": 100 * fv.style_match("_blocks.4", cat),
        "sort_match": 100 * fv.sort_match("_blocks.4", cat),
        "input_difference": unit - 20 * fv.input_difference(cat),
        "batchnorm_match": fv.class_logit("Egyptian cat") + 20 * fv.batchnorm_match(),
    }
    placed = {"feature_match", "input_difference"}  # these are tied to places of the image
    free = {k: o for k, o in rows.items() if k not in placed}
    tied = {k: o for k, o in rows.items() if k in placed}
    for some, transforms in ((free, "standard"), (tied, "noise:0.02")):
        made = fv.render(
            model, list(some.values()), size=160, steps=192, transforms=transforms, progress=True
        )
        for kind, picture in zip(some, made.images, strict=True):
            images.save(sheets.to_pil(picture), FOLDER / f"objective-{kind}.png")
    series: dict[str, fv.Objective] = {
        "diversity": unit + 10 * fv.diversity("_blocks.4"),
        "interpolate": fv.interpolate(unit, fv.channel(LAYER, 20)),
        "alignment": fv.interpolate(unit, fv.channel(LAYER, 20)) + 30 * fv.alignment("image"),
    }
    for kind, objective in series.items():
        made = fv.render(model, objective, seed=[0, 1, 2], size=96, steps=192, progress=True)
        strip = torch.cat([made.images[i] for i in range(3)], dim=2)
        images.save(sheets.to_pil(strip), FOLDER / f"objective-{kind}.png")


def sums(model: fv.Model) -> None:
    """Two channels, their sum and their difference."""
    a, b = fv.channel(LAYER, 5), fv.channel(LAYER, 20)
    fv.render(model, [a, b, a + b, a - b], steps=256, progress=True).save(FOLDER / "sums.png")


def similarity(model: fv.Model, pictures: torch.Tensor, layer: str) -> float:
    """Return the mean cosine between the Gram matrices of different images at ``layer``."""
    rows = gram(model.activations(pictures, [layer])[layer].detach(), 1).flatten(1)
    cosines = torch.nn.functional.normalize(rows) @ torch.nn.functional.normalize(rows).T
    count = len(pictures)
    return ((cosines.sum() - count) / (count * (count - 1))).item()


def diversity(model: fv.Model) -> None:
    """Four images of one channel, four seeds without and with diversity, and what it changes."""
    unit, layer = fv.channel("_blocks.13", 40), "_blocks.7"
    seeds = [0, 1, 2, 3]
    plain = fv.render(model, unit, seed=seeds, steps=256, progress=True)
    varied = fv.render(model, unit + 10 * fv.diversity(layer), seed=seeds, steps=256, progress=True)
    fv.Result.join([plain, varied]).save(FOLDER / "diversity.png", columns=4)
    before, after = (similarity(model, r.images, layer) for r in (plain, varied))
    kept = [unit(model, r.images).mean().item() for r in (plain, varied)]
    print(f"mean pairwise Gram cosine at {layer}: {before:.3f} without, {after:.3f} with diversity")
    print(f"that is {1 - after / before:.0%} less; the channel's activation: {kept}")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = fv.load("efficientnet_lite0")
    makers = {"table": table, "sums": sums, "diversity": diversity}
    for name in sys.argv[1:] or makers:
        makers[name](model)


if __name__ == "__main__":
    main()
