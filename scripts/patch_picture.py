"""Draw a printed patch on photographs, and what a network sees with and without it.

Writes the image of docs/attack.md:

    python benchmarks/robust_attacks.py patch --save patch.png
    python scripts/patch_picture.py patch.png -o docs/images/patch.png
"""

import argparse
from pathlib import Path

import skimage.data
import torch

import featviz as fv
from featviz.io import images as files
from featviz.io import sheets
from featviz.transforms import Paste

NAMES = ("coffee.png", "chelsea.png", "rocket.jpg", "astronaut.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patch", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = fv.load("efficientnet_lite0")
    folder = Path(skimage.data.__file__).parent
    photos = torch.cat([files.read(folder / name, 3, model.size) for name in NAMES])
    patch = files.read(options.patch, 3)
    place = Paste(photos)
    size = tuple(patch.shape[2:])
    tape = place.draw(torch.Generator().manual_seed(options.seed), len(photos), size)
    stuck = place.prepare(tape[None])(patch.expand(len(photos), -1, -1, -1), 0)
    with torch.no_grad():
        chances = [model(images).softmax(1) for images in (photos, stuck)]
    assert model.classes is not None
    classes = model.classes
    labels = []
    for rows in zip(*chances, strict=True):
        before, after = (f"{classes[int(p.argmax())]} {p.max():.0%}" for p in rows)
        labels.append(f"{before} -> {after}")
    files.save(sheets.sheet(stuck, labels, columns=len(NAMES)), options.out)
    print(options.out, *labels, sep="\n")


if __name__ == "__main__":
    main()
