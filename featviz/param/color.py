"""Decorrelated colour: channels that are independent in the state, correlated in the image."""

from __future__ import annotations

import functools
from typing import TypeAlias

import torch

from featviz.errors import FeatvizError
from featviz.types import Tensor

Matrix: TypeAlias = tuple[tuple[float, ...], ...]

#: The square root of the covariance of ImageNet's RGB values, as published with lucid
#: (``lucid/optvis/param/color.py``, "color_correlation_svd_sqrt"). [Olah2017]_
IMAGENET: Matrix = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


@functools.lru_cache(maxsize=64)
def _matrix(values: Matrix, inverse: bool, device: torch.device | str) -> Tensor:
    root = torch.tensor(values, dtype=torch.float64)
    root = root / torch.linalg.vector_norm(root, dim=0).max()
    if inverse:
        root = torch.linalg.inv(root)
    return root.to(torch.float32).to(device)


def matrix(
    color: str | Matrix, channels: int, *, inverse: bool = False, device: torch.device | str = "cpu"
) -> Tensor | None:
    """Return the C x C matrix that correlates the channels, or None for uncorrelated channels.

    The largest column has norm 1, so that images keep their contrast whatever the units of the
    covariance. ``inverse`` returns the matrix that decorrelates.

    Raises
    ------
    FeatvizError
        If the matrix is not C x C, is singular, or the name is unknown.
    """
    if color == "auto":
        color = "imagenet" if channels == 3 else "none"
    if color == "none":
        return None
    if color == "imagenet":
        color = IMAGENET
    if isinstance(color, str):
        raise FeatvizError(f"no colour {color!r}; known: imagenet, none, auto, or a matrix")
    if len(color) != channels or any(len(row) != channels for row in color):
        raise FeatvizError(
            f"colour matrix has {len(color)} rows, but the images {channels} channels"
        )
    try:
        return _matrix(tuple(tuple(map(float, row)) for row in color), inverse, device)
    except RuntimeError:  # torch.linalg.LinAlgError is one
        raise FeatvizError("colour matrix is singular") from None


def apply(matrix: Tensor | None, raw: Tensor) -> Tensor:
    """Multiply the channel vectors of (B, C, *size) by the matrix; None leaves them unchanged."""
    if matrix is None:
        return raw
    flat = matrix.to(raw.device, raw.dtype) @ raw.flatten(2)
    return flat.reshape(raw.shape)
