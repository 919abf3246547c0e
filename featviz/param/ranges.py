"""Value ranges: maps from raw values to image values, and their inverses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from featviz.errors import FeatvizError, did_you_mean
from featviz.types import Tensor

#: Distance kept from the bounds when an image is inverted through a sigmoid or tanh: a quarter of
#: an 8-bit step, so that the saved image is the same.
MARGIN = 1 / 1024

#: The name of a range, or (low, high) of each channel.
Spec: TypeAlias = str | tuple[tuple[float, float], ...]


class _Clamp(torch.autograd.Function):
    """Clamp to [0, 1], with a gradient that vanishes only where it would lead further out.

    The gradient is that of a score to be maximized: above the upper bound a positive one is dropped
    and a negative one kept, so that no value is stuck outside.
    """

    @staticmethod
    def forward(ctx: Any, raw: Tensor) -> Tensor:
        ctx.save_for_backward(raw)
        return raw.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (raw,) = ctx.saved_tensors
        outward = ((raw > 1) & (gradient > 0)) | ((raw < 0) & (gradient < 0))
        return gradient.masked_fill(outward, 0)


@dataclasses.dataclass(frozen=True)
class Range:
    """A map from raw values (around 0) to the range of images, and its inverse."""

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]


def _unit(image: Tensor) -> Tensor:
    return image.clamp(MARGIN, 1 - MARGIN)


RANGES = {
    "sigmoid": Range(torch.sigmoid, lambda image: _unit(image).logit()),
    "tanh": Range(lambda raw: (raw.tanh() + 1) / 2, lambda image: (2 * _unit(image) - 1).atanh()),
    "clamp": Range(lambda raw: _Clamp.apply(raw + 0.5), lambda image: image.clamp(0, 1) - 0.5),
    "none": Range(lambda raw: raw + 0.5, lambda image: image - 0.5),
}


def _bounded(bounds: tuple[tuple[float, float], ...]) -> Range:
    """Return a sigmoid between the bounds of each channel."""
    sigmoid = RANGES["sigmoid"]

    def low_and_width(image: Tensor) -> tuple[Tensor, Tensor]:
        limits = torch.tensor(bounds, dtype=image.dtype, device=image.device)
        shape = (-1, *(1 for _ in image.shape[2:]))
        return limits[:, 0].view(shape), (limits[:, 1] - limits[:, 0]).view(shape)

    def forward(raw: Tensor) -> Tensor:
        low, width = low_and_width(raw)
        return low + width * sigmoid.forward(raw)

    def inverse(image: Tensor) -> Tensor:
        low, width = low_and_width(image)
        return sigmoid.inverse((image - low) / width)

    return Range(forward, inverse)


def get(spec: Spec, channels: int | None = None) -> Range:
    """Return the range of a name, or of the bounds of each channel.

    Raises
    ------
    FeatvizError
        If the name is unknown, or the bounds are not one (low, high) per channel.
    """
    if isinstance(spec, str):
        if spec not in RANGES:
            hint = did_you_mean(spec, RANGES) or f"; known: {', '.join(RANGES)}"
            raise FeatvizError(f"no range {spec!r}{hint}")
        return RANGES[spec]
    if any(len(bounds) != 2 or not bounds[0] < bounds[1] for bounds in spec):
        raise FeatvizError(f"range needs (low, high) with low < high for each channel, not {spec}")
    if channels is not None and len(spec) != channels:
        raise FeatvizError(f"range has bounds for {len(spec)} channels, not {channels}")
    return _bounded(spec)
