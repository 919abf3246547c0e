"""Images in any form that a verb takes: files, Pillow images, tensors; and masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from featviz.errors import FeatvizError
from featviz.io import decode, images
from featviz.resample import resize
from featviz.types import Tensor

#: What is dreamed into, or where: a file, a Pillow picture, or floats in [0, 1].
ImageLike = str | Path | Image.Image | Tensor
#: How far resampling may have taken values out of [0, 1].
_ROUNDING = 1e-3


def read(image: ImageLike, channels: int, what: str, axes: int = 2) -> Tensor:
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
    image: ImageLike | Sequence[ImageLike],
    channels: int,
    default: tuple[int, ...],
    size: tuple[int, ...] | None,
    what: str,
) -> Tensor:
    """Return one picture or several as floats (B, C, *size) in [0, 1], as a network takes them.

    A file or Pillow picture is cropped about its centre to the aspect of ``size`` and resized to it
    (bilinear, antialiased), as in :func:`featviz.examples`; ``default`` where none is given.
    A tensor is resized only where a ``size`` is given, and not cropped.

    Raises
    ------
    FeatvizError
        If it cannot be read, is a tensor of another kind, or several have different sizes.
    """
    if isinstance(image, (list, tuple)):
        if not image:
            raise FeatvizError(f"{what}: give at least one")
        found = [read_fitted(item, channels, default, size, what) for item in image]
        if len({tuple(f.shape[1:]) for f in found}) > 1:
            raise FeatvizError(f"{what}: several of different sizes; say to which with size=")
        return torch.cat(found)
    fitted = default if size is None else size
    if isinstance(image, (str, Path, Image.Image)) and len(fitted) != 2:
        raise FeatvizError(f"{what} of a network of size {default} must be a float tensor")
    if isinstance(image, (str, Path)):
        return images.read(image, channels, fitted)
    if isinstance(image, Image.Image):
        return decode.from_pil(image, channels, fitted)
    given = read(image, channels, what, len(default))  # type: ignore[arg-type]
    return given if size is None else resize(given, size, antialias=True).clamp(0, 1)


def read_mask(mask: ImageLike, size: tuple[int, int], batch: int) -> Tensor:
    """Return a mask as floats (1 or B, 1, *size)."""
    if isinstance(mask, torch.Tensor) and mask.ndim == 2:
        mask = mask[None, None]
    found = read(mask, 1, "mask")
    if len(found) not in (1, batch):
        raise FeatvizError(f"{len(found)} masks for {batch} pictures")
    return resize(found, size, antialias=True).clamp_(0, 1)
