"""What stands where something is taken away from an image, and in which pieces it goes."""

from __future__ import annotations

import math

import torch

from featviz.errors import FeatvizError, did_you_mean
from featviz.param.mask import cell_counts
from featviz.types import Tensor

#: Deviation of the blur, as a share of the longer side: 14 px of 224, where Lite0 sees no more.
BLUR = 1 / 16
BASELINES = ("blur", "black", "mean")


def blurred(images: Tensor, share: float = BLUR) -> Tensor:
    """Blur (B, C, *size) by a Gaussian whose deviation is a share of the longer side.

    What lies beyond an edge is what is at the edge.
    """
    sd = share * max(images.shape[2:])
    reach = max(1, math.ceil(3 * sd))
    steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-((steps / sd) ** 2) / 2)
    weights = weights / weights.sum()
    for axis in range(2, images.ndim):
        side = images.shape[axis]
        places = torch.arange(side, device=images.device)
        # As a matrix (side, side): what a pixel takes from each of its axis, edges repeated.
        sources = (places[:, None] + steps.long()).clamp(0, side - 1)
        mix = images.new_zeros(side, side).scatter_add_(1, sources, weights.expand(side, -1))
        images = torch.tensordot(images, mix, dims=([axis], [1])).movedim(-1, axis)
    return images.contiguous()


def baseline(kind: str | float | Tensor, images: Tensor) -> Tensor:
    """Return what stands for nothing in ``images`` (B, C, *size), of the same shape.

    ``blur`` is the image blurred (:func:`blurred`), ``black`` 0, ``mean`` the mean of each of
    the image's channels; a number in [0, 1] is that everywhere; a tensor (1 or B, C or 1,
    *size) is taken as it is.

    Raises
    ------
    FeatvizError
        For another name, a number outside of [0, 1], or a tensor that does not fit.
    """
    if isinstance(kind, torch.Tensor):
        given = kind.detach().to(images)
        given = given if given.ndim == images.ndim else given[None]
        try:
            whole = given.broadcast_to(images.shape).contiguous()
        except RuntimeError:
            raise FeatvizError(
                f"baseline of shape {tuple(kind.shape)} does not fit images {tuple(images.shape)}"
            ) from None
        if not 0 <= whole.min() <= whole.max() <= 1:  # also for NaN
            raise FeatvizError("a baseline must be in [0, 1]")
        return whole
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
    raise FeatvizError(f"no baseline {kind!r}: it is {', '.join(BASELINES)}, or a tensor{hint}")


def grid(size: tuple[int, ...], cells: int | None) -> Tensor:
    """Return the number of the cell that each position lies in, counted row by row, (*size).

    ``cells`` along the longer side, as many of about the same side along the others; None makes
    every position a cell.
    """
    labels = torch.zeros(size, dtype=torch.long)
    for axis, (side, count) in enumerate(zip(size, cell_counts(size, cells), strict=True)):
        here = torch.arange(side) * count // side
        shape = [1] * len(size)
        shape[axis] = side
        labels = labels * count + here.view(shape)
    return labels
