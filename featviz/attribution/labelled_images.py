"""What is fitted to: images in [0, 1], and a class for each."""

from __future__ import annotations

from typing import Any

import torch

from featviz.errors import FeatvizError, shorten
from featviz.io.inputs import read_image
from featviz.networks.model import Model
from featviz.types import Tensor


def checked_images(model: Model, images: Any, what: str = "images", *, least: int = 1) -> Tensor:
    """Return images (N, C, *size) as floats on the CPU.

    Raises
    ------
    FeatvizError
        If they are not such images in [0, 1], or fewer than ``least``.
    """
    count = len(images) if hasattr(images, "__len__") else least
    if count < least:
        raise FeatvizError(f"at least {least} {what} are needed, not {count}")
    found = read_image(images, model.channels, what, len(model.size))
    if len(found) < least:
        raise FeatvizError(f"at least {least} {what} are needed, not {len(found)}")
    return found


def checked_labels(labels: Any, count: int, classes: int | None, what: str = "labels") -> Tensor:
    """Return whole numbers (N,) from 0 as a long tensor on the CPU.

    Raises
    ------
    FeatvizError
        If they are not one for each of ``count`` images, or not below ``classes``.
    """
    try:
        found = torch.as_tensor(labels).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        given = shorten(type(labels).__name__)
        raise FeatvizError(f"{what} must be whole numbers (N,), not {given}") from None
    if found.shape != (count,) or found.is_floating_point() or found.is_complex():
        raise FeatvizError(
            f"{count} images need one label each, {what} must be whole numbers ({count},), not "
            f"{found.dtype} {tuple(found.shape)}"
        )
    found = found.long()
    if count and (found.min() < 0 or (classes is not None and found.max() >= classes)):
        end = "" if classes is None else f" to {classes - 1}"
        raise FeatvizError(f"{what} must be from 0{end}")
    return found
