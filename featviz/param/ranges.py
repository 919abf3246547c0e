"""Ranges: how raw values become values in [0, 1], and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from featviz.errors import FeatvizError, did_you_mean
from featviz.types import Tensor

#: How near to 0 and 1 a sigmoid is asked to come when a given image is inverted: a quarter of
#: an 8-bit step, so that what is saved is the same.
MARGIN = 1 / 1024


class _Clamp(torch.autograd.Function):
    """Clamp whose gradient vanishes only where it would lead further out.

    The gradient is that of a score to be raised: past the upper end a positive one is dropped
    and a negative one kept, so that no value is stuck outside.
    """

    @staticmethod
    def forward(ctx: Any, raw: Tensor) -> Tensor:
        ctx.save_for_backward(raw)
        return raw.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (raw,) = ctx.saved_tensors
        further = ((raw > 1) & (gradient > 0)) | ((raw < 0) & (gradient < 0))
        return gradient.masked_fill(further, 0)


@dataclasses.dataclass(frozen=True)
class Range:
    """A map of raw values (around 0) into [0, 1] and its inverse."""

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]


RANGES = {
    "sigmoid": Range(torch.sigmoid, lambda image: image.clamp(MARGIN, 1 - MARGIN).logit()),
    "clamp": Range(lambda raw: _Clamp.apply(raw + 0.5), lambda image: image.clamp(0, 1) - 0.5),
}


def get(name: str) -> Range:
    """Return the range called ``name``; raise :class:`FeatvizError` if there is none."""
    if name not in RANGES:
        hint = did_you_mean(name, RANGES) or f"; known: {', '.join(RANGES)}"
        raise FeatvizError(f"no range {name!r}{hint}")
    return RANGES[name]
