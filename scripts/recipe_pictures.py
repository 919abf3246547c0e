"""Make the images of docs/recipes.md and the README's building blocks: docs/images/recipe-*.png.

python scripts/recipe_pictures.py [NAME…]
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import foolbox
import skimage.data
import torch
from PIL import Image

import featviz as fv
from featviz.recipes.drawing import Page

FOLDER = Path(__file__).parent.parent / "docs" / "images"
STEPS = 64


def cat() -> Image.Image:
    return Image.fromarray(skimage.data.chelsea())


def coffee() -> Image.Image:
    return Image.fromarray(skimage.data.coffee())


def patches(each: int) -> list[Image.Image]:
    """Return random crops of 24 photographs: four of scikit-image, twenty of foolbox."""
    loaders = (skimage.data.chelsea, skimage.data.coffee, skimage.data.rocket)
    photos = [Image.fromarray(load()) for load in (*loaders, skimage.data.astronaut)]
    photos += [
        Image.open(path).convert("RGB")
        for path in sorted((Path(foolbox.__file__).parent / "data").glob("imagenet*.jpg"))
    ]
    random = torch.Generator().manual_seed(0)
    crops = []
    for photo in photos:
        for share, across, down in torch.rand(each, 3, generator=random).tolist():
            side = round(min(photo.size) * (0.35 + 0.5 * share))
            left, top = round(across * (photo.width - side)), round(down * (photo.height - side))
            crops.append(photo.crop((left, top, left + side, top + side)))
    return crops


def blocks_cat(model: fv.Model) -> Page:
    goal = fv.class_logit("Egyptian cat")
    return fv.recipes.building_blocks(model, cat(), goal, "_blocks.13", steps=STEPS)


def blocks_espresso(model: fv.Model) -> Page:
    goal = fv.class_logit("espresso")
    return fv.recipes.building_blocks(model, coffee(), goal, "_blocks.13", steps=STEPS)


def groups(model: fv.Model) -> Page:
    goal = fv.class_logit("Egyptian cat")
    return fv.recipes.neuron_groups(model, cat(), "_blocks.10", objective=goal, steps=STEPS)


def circuit(model: fv.Model) -> Page:
    return fv.recipes.circuit(model, "_blocks.9", "_blocks.10", [62, 102], steps=STEPS)


def grid(model: fv.Model) -> Page:
    return fv.recipes.activation_grid(model, cat(), "_blocks.10", steps=STEPS, size=96)


def atlas(model: fv.Model) -> Page:
    with tempfile.TemporaryDirectory() as out:
        return fv.recipes.activation_atlas(
            model, patches(36), "_blocks.13", out, steps=STEPS, size=96
        )


RECIPES: dict[str, Callable[[fv.Model], Page]] = {
    "blocks-cat": blocks_cat,
    "blocks-espresso": blocks_espresso,
    "groups": groups,
    "circuit": circuit,
    "grid": grid,
    "atlas": atlas,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*RECIPES, []], metavar="NAME")
    names = parser.parse_args().names or RECIPES
    model = fv.load("efficientnet_lite0")
    for name in names:
        RECIPES[name](model).save(FOLDER / f"recipe-{name}.png")


if __name__ == "__main__":
    main()
