"""Baselines that replace removed pixels, and the grid of cells that are removed."""

from __future__ import annotations

import math

import torch

from featviz.errors import FeatvizError, did_you_mean
from featviz.param.mask import cell_counts
from featviz.types import Tensor

#: Standard deviation of the blur as a fraction of the longer side: 14 px of 224, at which Lite0
#: recognizes nothing.
BLUR = 1 / 16
BASELINES = ("blur", "black", "mean")


def blurred(images: Tensor, share: float = BLUR) -> Tensor:
    """Blur (B, C, *size) with a Gaussian kernel.

    Its standard deviation is the fraction ``share`` of the longer side. Beyond an edge, the edge
    values are repeated.
    """
    sd = share * max(images.shape[2:])
    radius = max(1, math.ceil(3 * sd))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-((offsets / sd) ** 2) / 2)
    weights = weights / weights.sum()
    for axis in range(2, images.ndim):
        side = images.shape[axis]
        positions = torch.arange(side, device=images.device)
        # As a matrix (side, side): each pixel's weights over its axis, with repeated edges.
        sources = (positions[:, None] + offsets.long()).clamp(0, side - 1)
        kernel = images.new_zeros(side, side).scatter_add_(1, sources, weights.expand(side, -1))
        images = torch.tensordot(images, kernel, dims=([axis], [1])).movedim(-1, axis)
    return images.contiguous()


def baseline(kind: str | float | Tensor, images: Tensor) -> Tensor:
    """Return the baseline of ``images`` (B, C, *size), of the same shape.

    ``blur`` is the blurred image (:func:`blurred`), ``black`` is 0 and ``mean`` the mean of each
    channel of the image; a number in [0, 1] is used everywhere; a tensor (1 or B, C or 1, *size) is
    used as it is.

    Raises
    ------
    FeatvizError
        For an unknown name, a number outside [0, 1], or a tensor that does not fit.
    """
    if isinstance(kind, torch.Tensor):
        values = kind.detach().to(images)
        values = values if values.ndim == images.ndim else values[None]
        try:
            expanded = values.broadcast_to(images.shape).contiguous()
        except RuntimeError:
            raise FeatvizError(
                f"baseline of shape {tuple(kind.shape)} does not fit images {tuple(images.shape)}"
            ) from None
        if not 0 <= expanded.min() <= expanded.max() <= 1:  # also for NaN
            raise FeatvizError("a baseline must be in [0, 1]")
        return expanded
    if isinstance(kind, (int, float)) and not isinstance(kind, bool):
        if not 0 <= kind <= 1:
            raise FeatvizError(f"a baseline must be in [0, 1], not {kind}")
        return torch.full_like(images, kind)
    if kind == "blur":
        return blurred(images)
    if kind == "black":
        return torch.zeros_like(images)
    if kind == "mean":
        return images.mean(tuple(range(2, images.ndim)), keepdim=True).expand_as(images).clone()
    hint = did_you_mean(kind, BASELINES) if isinstance(kind, str) else ""
    raise FeatvizError(
        f"no baseline {kind!r}: use {', '.join(BASELINES)}, a number or a tensor{hint}"
    )


def grid(size: tuple[int, ...], cells: int | None) -> Tensor:
    """Return the index of the cell that each position lies in, counted row by row, (*size).

    There are ``cells`` along the longer side, and along the others as many as keep the cells
    roughly square; with None every position is a cell.
    """
    labels = torch.zeros(size, dtype=torch.long)
    for axis, (side, count) in enumerate(zip(size, cell_counts(size, cells), strict=True)):
        indices = torch.arange(side) * count // side
        shape = [1] * len(size)
        shape[axis] = side
        labels = labels * count + indices.view(shape)
    return labels
