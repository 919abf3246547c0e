"""Make the images of docs/recipes.md and the README's building blocks: docs/images/recipe-*.png.

python scripts/recipe_pictures.py [NAME…]
"""

import sys
from collections.abc import Callable
from pathlib import Path

import skimage.data
from PIL import Image

import featviz as fv
from featviz.recipes.drawing import Page

FOLDER = Path(__file__).parent.parent / "docs" / "images"
STEPS = 64


def cat() -> Image.Image:
    return Image.fromarray(skimage.data.chelsea())


def coffee() -> Image.Image:
    return Image.fromarray(skimage.data.coffee())


def blocks_cat(model: fv.Model) -> Page:
    goal = fv.class_logit("Egyptian cat")
    return fv.recipes.building_blocks(model, cat(), goal, "_blocks.13", steps=STEPS)


def blocks_espresso(model: fv.Model) -> Page:
    goal = fv.class_logit("espresso")
    return fv.recipes.building_blocks(model, coffee(), goal, "_blocks.13", steps=STEPS)


def groups(model: fv.Model) -> Page:
    goal = fv.class_logit("Egyptian cat")
    return fv.recipes.neuron_groups(model, cat(), "_blocks.10", objective=goal, steps=STEPS)


RECIPES: dict[str, Callable[[fv.Model], Page]] = {
    "blocks-cat": blocks_cat,
    "blocks-espresso": blocks_espresso,
    "groups": groups,
}


def main() -> None:
    model = fv.load("efficientnet_lite0")
    for name in sys.argv[1:] or RECIPES:
        RECIPES[name](model).save(FOLDER / f"recipe-{name}.png")


if __name__ == "__main__":
    main()
