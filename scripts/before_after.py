"""Make docs/images/before-after-{classes,units}.jpg: the default of featviz 0.1 and today's.

    python scripts/before_after.py              # both sheets, forty minutes on two cores
    python scripts/before_after.py units

Twenty classes and twenty units of EfficientNet-Lite0, chosen by their numbers alone, 256 steps.
Of every pair the upper image is the older one.
"""

import sys
from pathlib import Path

import torch
from PIL import Image

import featviz as fv
from featviz.io import sheets

FOLDER = Path(__file__).parent.parent / "docs" / "images"
CLASSES = tuple(range(20, 1000, 49))
#: Layers from early to late, and units of each.
UNITS = {
    "_blocks.2": (3, 11, 19),
    "_blocks.4": (7, 17, 27, 37),
    "_blocks.7": (9, 29, 49, 69),
    "_blocks.10": (11, 41, 71, 101),
    "_blocks.13": (21, 81, 141, 171),
    "_blocks.15": (50,),
}
#: As a file of that version is read: what has become a setting since is what it was then.
BEFORE = fv.Settings.from_record(
    {
        "version": "0.1",
        "steps": 256,
        "size": [224, 224],
        "param": "fourier",
        "transforms": "standard",
        "optimizer": "adam",
        "lr": 0.05,
        "redirect": 16,
        "precision": "fp32",
    }
)
AFTER = fv.Settings(steps=256)
COLUMNS, SIZE, GAP = 10, 160, 4


def sheet(before: torch.Tensor, after: torch.Tensor) -> Image.Image:
    """Draw rows of older images, each above a row of newer ones, with a gap between the pairs."""
    lines = -(-len(before) // COLUMNS)
    width, height = COLUMNS * (SIZE + GAP) - GAP, lines * (2 * SIZE + 3 * GAP) - 2 * GAP
    whole = Image.new("RGB", (width, height), "white")
    for k, pair in enumerate(zip(before, after, strict=True)):
        line, column = divmod(k, COLUMNS)
        for row, picture in enumerate(pair):
            tile = sheets.to_pil(picture).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
            top = line * (2 * SIZE + 3 * GAP) + row * (SIZE + 1)
            whole.paste(tile, (column * (SIZE + GAP), top))
    return whole


def main() -> None:
    model = fv.load("efficientnet_lite0")
    goals: dict[str, list[fv.Objective]] = {
        "classes": [fv.class_logit(c) for c in CLASSES],
        "units": [fv.channel(layer, u) for layer, units in UNITS.items() for u in units],
    }
    for name in sys.argv[1:] or goals:
        pairs = [
            fv.render(model, goals[name], settings=settings, progress=True).images
            for settings in (BEFORE, AFTER)
        ]
        sheet(*pairs).save(FOLDER / f"before-after-{name}.jpg", quality=88)


if __name__ == "__main__":
    main()
