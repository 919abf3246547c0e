"""What a verb is given: a picture in some form, a mask, an objective or none, a count."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from featviz import decode, images
from featviz.errors import FeatvizError
from featviz.model import Model
from featviz.objectives import Objective, guide_match, layer
from featviz.objectives import objective as as_objective
from featviz.objectives.reference import Picture
from featviz.resample import resize
from featviz.types import Tensor

#: What is dreamed into, or where: a file, a Pillow picture, or floats in [0, 1].
Source = str | Path | Image.Image | Tensor
#: How far resampling may have taken values out of [0, 1].
_ROUNDING = 1e-3


def read(image: Source, channels: int, what: str, axes: int = 2) -> Tensor:
    """Return a picture as floats (B, C, H, W) in [0, 1] on the CPU; tensors of other ``axes`` too.

    Raises
    ------
    FeatvizError
        If it cannot be read, or is a tensor of another kind, with what to do.
    """
    if isinstance(image, (str, Path)):
        return images.read(image, channels)
    if isinstance(image, Image.Image):
        return decode.from_pil(image, channels)
    if not isinstance(image, torch.Tensor):
        kind = type(image).__name__
        raise FeatvizError(f"{what} must be a file, a Pillow picture or a float tensor, not {kind}")
    if not image.is_floating_point():
        raise FeatvizError(f"{what} must be floats in [0, 1], not {image.dtype}: divide by 255")
    found = image.detach().float().cpu()
    found = found if found.ndim == axes + 2 else found[None]
    if found.ndim != axes + 2 or found.shape[1] != channels or 0 in found.shape:
        sides = {1: "L", 2: "H, W", 3: "D, H, W"}.get(axes, "*size")
        raise FeatvizError(
            f"{what} must have shape (B, {channels}, {sides}), not {tuple(image.shape)}"
        )
    low, high = found.aminmax()
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # also for NaN
        raise FeatvizError(f"{what} must be in [0, 1], not from {low:.3g} to {high:.3g}: scale it")
    return found if low >= 0 and high <= 1 else found.clamp(0, 1)


def read_fitted(
    image: Source | Sequence[Source], model: Model, size: tuple[int, ...] | None, what: str
) -> Tensor:
    """Return one picture or several as floats (B, C, *size) in [0, 1], as a network takes them.

    A file or Pillow picture is cropped about its centre to the aspect of ``size`` and resized to it
    (bilinear, antialiased), as in :func:`featviz.examples`; ``size`` is the model's own by default.
    A tensor is resized only where a ``size`` is given, and not cropped.

    Raises
    ------
    FeatvizError
        If it cannot be read, is a tensor of another kind, or several have different sizes.
    """
    if isinstance(image, (list, tuple)):
        if not image:
            raise FeatvizError(f"{what}: give at least one")
        found = [read_fitted(item, model, size, what) for item in image]
        if len({tuple(f.shape[1:]) for f in found}) > 1:
            raise FeatvizError(f"{what}: several of different sizes; say to which with size=")
        return torch.cat(found)
    fitted = model.size if size is None else size
    if isinstance(image, (str, Path, Image.Image)) and len(fitted) != 2:
        raise FeatvizError(f"{what} of a network of size {model.size} must be a float tensor")
    if isinstance(image, (str, Path)):
        return images.read(image, model.channels, fitted)
    if isinstance(image, Image.Image):
        return decode.from_pil(image, model.channels, fitted)
    given = read(image, model.channels, what, len(model.size))  # type: ignore[arg-type]
    return given if size is None else resize(given, size, antialias=True).clamp(0, 1)


def read_mask(mask: Source, size: tuple[int, int], batch: int) -> Tensor:
    """Return a mask as floats (1 or B, 1, *size)."""
    if isinstance(mask, torch.Tensor) and mask.ndim == 2:
        mask = mask[None, None]
    found = read(mask, 1, "mask")
    if len(found) not in (1, batch):
        raise FeatvizError(f"{len(found)} masks for {batch} pictures")
    return resize(found, size, antialias=True).clamp_(0, 1)


def choose(model: Model, objective: Objective | str | None, guide: Picture | None) -> Objective:
    """Return what to dream of: the objective, a layer's energy, or a match with the guide."""
    goal = layer(middle(model)) if objective is None else as_objective(objective)
    if guide is None:
        return goal
    if len(goal.layers) != 1:
        raise FeatvizError(
            f"a guide needs an objective of one layer, such as layer:NAME, not {goal}"
        )
    return guide_match(goal.layers[0], guide)


def middle(model: Model) -> str:
    """Return the layer at two thirds of the depth: the block in which that map lies.

    Raises
    ------
    FeatvizError
        If the network has no layer with positions.
    """
    table = model.layers()
    names = [info.name for info in table if len(info.positions) == len(model.size)]
    if not names:
        raise FeatvizError(
            "the network has no layer with positions: say which objective to dream of"
        )
    words = names[len(names) * 2 // 3].split(".")
    around = [".".join(words[: k + 1]) for k in range(len(words))]
    early = names[: len(names) * 4 // 5 + 1]  # a block around nearly everything is none
    return next(name for name in around if name in early)


def count(name: str, value: Any) -> int:
    """Return a positive whole number; raise :class:`FeatvizError` for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        raise FeatvizError(f"{name} must be a whole number, not {value!r}") from None
    if number < 1:
        raise FeatvizError(f"{name} must be positive, not {number}")
    return number
