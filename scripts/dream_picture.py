"""A photograph, a dream of it in one octave, and one in four.

Writes docs/images/dream.png (half a minute on one core):

    python scripts/dream_picture.py
"""

from pathlib import Path

import skimage.data
import torch
from PIL import Image

import featviz as fv
from featviz.io import decode, images, sheets


def main() -> None:
    model = fv.load("efficientnet_lite0")
    photo = Image.fromarray(skimage.data.chelsea()).resize((384, 256), Image.Resampling.LANCZOS)
    dreams = [
        fv.dream(model, photo, "layer:_blocks.10", octaves=n, steps=20, lr=0.012, progress=True)
        for n in (1, 4)
    ]
    original = decode.from_pil(photo, 3)
    shown = torch.cat([original, *(made.images for made in dreams)])
    page = sheets.sheet(shown, ["original", "one octave", "four octaves"], columns=3)
    images.save(page, Path(__file__).parent.parent / "docs" / "images" / "dream.png")


if __name__ == "__main__":
    main()
