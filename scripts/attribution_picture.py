"""A photograph and seven answers to which of its pixels carry a class.

Writes docs/images/attribution.png (half a minute on one core):

    python scripts/attribution_picture.py
"""

from pathlib import Path

import skimage.data
import torch
from PIL import Image

import featviz as fv
from featviz.attribution.result import overlay
from featviz.io import images, sheets
from featviz.types import MethodName

METHODS: tuple[MethodName, ...] = (
    "integrated_gradients",
    "smooth_grad",
    "guided_backprop",
    "grad_cam",
    "occlusion",
    "extremal_perturbation",
    "meaningful_perturbation",
)


def main() -> None:
    model = fv.load("efficientnet_lite0")
    photo = Image.fromarray(skimage.data.chelsea())
    goal = fv.class_logit("Egyptian cat")
    made = [
        fv.attribute(model, photo, goal, method=name, size=(224, 336), progress=True)
        for name in METHODS
    ]
    shown = [made[0].images, *(overlay(m.images, m.heat) for m in made)]
    labels = ["image", *(name.replace("_", " ") for name in METHODS)]
    page = sheets.sheet(torch.cat(shown), labels, columns=4)
    images.save(page, Path(__file__).parent.parent / "docs" / "images" / "attribution.png")


if __name__ == "__main__":
    main()
