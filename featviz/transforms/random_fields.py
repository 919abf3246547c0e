"""Random fields: one for each sample, determined by a float of its tape."""

from __future__ import annotations

import math

import torch

from featviz.normals import normals
from featviz.resample import resize
from featviz.types import Tensor


def normal_fields(starts: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return normal numbers (B, *shape) of the type of ``like``, for each sample from its start."""
    count = math.prod(shape)
    # The tape is on the CPU: reading it does not wait for a device.
    noise = torch.stack([normals(start, count, like.device) for start in starts.tolist()])
    return noise.reshape(-1, *shape).to(like.dtype)


def spots(
    starts: Tensor,
    channels: int,
    size: tuple[int, ...],
    like: Tensor,
    *,
    sd: float = 0.3,
    cells: int = 6,
) -> Tensor:
    """Return soft blobs of colour (B, channels, *size) in [0, 1], about ``cells`` per side.

    Their colours are normal about mid-gray with standard deviation ``sd``, clipped.
    """
    grid = (channels, *(min(cells, side) for side in size))
    blobs = normal_fields(starts, grid, like).mul_(sd).add_(0.5).clamp_(0, 1)
    return resize(blobs, size)
