"""Reduce a response map to one number per sample: which positions count, and how."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import torch

from featviz.errors import UnitError, did_you_mean
from featviz.objectives import arrays
from featviz.objectives.scene import Target
from featviz.types import LayerInfo, Tensor

_NAMES = ("mean", "sum", "max", "mean_square", "sum_square", "norm", "top5")
#: Keeps the gradient of a square root finite at zero.
EPSILON = 1e-12


def check(name: str) -> str:
    """Return ``name`` if it is a reduction; raise :class:`UnitError` otherwise."""
    if name not in _NAMES and not re.fullmatch(r"top[1-9]\d*", name):
        raise UnitError(
            f"no reduction {name!r}{did_you_mean(name, _NAMES)}; known: {', '.join(_NAMES)} (topN)"
        )
    return name


def reducer(
    name: str, where: str, info: LayerInfo, target: Target
) -> Callable[[Tensor, int], Tensor]:
    """Return the function that reduces responses (B, …, *positions) to (B,).

    Its second argument is the number of axes before the positions. ``name`` is ``mean``, ``sum``,
    ``max``, ``mean_square``, ``sum_square``, ``norm`` (L2) or ``topN``, the mean of the N largest;
    each reduces every axis but the batch, over the positions that ``where`` selects, with its
    weights. The gradient of a norm at zero is zero.
    """
    weights = weights_of(where, info, target)

    def reduce(values: Tensor, leading_axes: int = 1) -> Tensor:
        if weights is None:
            flat, flat_weights = values.reshape(len(values), -1), None
        else:
            shape = (*(1 for _ in range(leading_axes)), *weights.shape)
            expanded = weights.to(values.dtype).reshape(shape).expand(values.shape)
            flat, flat_weights = values.reshape(len(values), -1), expanded.reshape(len(values), -1)
        return _reduce(name, flat, flat_weights)

    return reduce


def _reduce(name: str, values: Tensor, weights: Tensor | None) -> Tensor:
    if name in ("mean_square", "sum_square", "norm"):
        values = values.square()
    if name == "max" or name.startswith("top"):
        if weights is not None:
            values = values.masked_fill(weights == 0, -math.inf)
        if name == "max":
            return values.amax(1)
        count = values.shape[1] if weights is None else int((weights[0] != 0).sum())
        return values.topk(min(int(name[3:]), count), dim=1).values.mean(1)
    if weights is not None:
        values = values * weights
    if name in ("mean", "mean_square"):
        return values.mean(1) if weights is None else values.sum(1) / weights.sum(1)
    total = values.sum(1)
    return (total + EPSILON).sqrt() if name == "norm" else total


def weights_of(where: str, info: LayerInfo, target: Target) -> Tensor | None:
    """Return the weight of each position, or None if all count equally.

    ``where`` is ``cls`` (the first token), ``patches`` (the tokens of the image patches), slices as
    in numpy (``"2:5,3:7"``, ``"0"``), one position (``"@3,5"``, also of a patch), or an array or
    ``.npy`` file of weights.

    Raises
    ------
    UnitError
        If it does not match the layer's positions, or selects nothing.
    """
    if not where:
        return None
    sizes = info.positions
    if where in ("cls", "patches"):
        prefix, grid = token_grid(info, target)
        weights = torch.zeros(sizes)
        if where == "cls" and not prefix:
            raise UnitError(
                f"layer {info.name!r} has no class token: all {sizes[0]} tokens are patches"
            )
        weights[: 1 if where == "cls" else None] = 1
        if where == "patches":
            weights[: sizes[0] - math.prod(grid)] = 0
    elif re.fullmatch(r"@\d+(?:,\d+)*", where):
        weights = torch.zeros(sizes)
        weights[position([int(p) for p in where[1:].split(",")], info, target)] = 1
    elif re.fullmatch(r"[\d:,\s-]+", where):
        weights = torch.zeros(sizes)
        try:
            weights[tuple(_slice(part) for part in where.split(","))] = 1
        except (IndexError, ValueError):
            raise UnitError(
                f"no positions {where!r} in layer {info.name!r}: {_grid_text(info)}"
            ) from None
    else:
        weights = torch.as_tensor(arrays.load(where), dtype=torch.float32)
        if tuple(weights.shape) != sizes:
            raise UnitError(
                f"mask {where!r} has shape {tuple(weights.shape)}, but layer {info.name!r}: "
                f"{_grid_text(info)}"
            )
    if not (weights >= 0).all() or not weights.any():
        raise UnitError(
            f"mask {where!r} selects nothing of layer {info.name!r}: {_grid_text(info)}"
        )
    return weights.to(target.device)


def _grid_text(info: LayerInfo) -> str:
    if not info.positions:
        return "it has no positions"
    return f"its map is {'x'.join(map(str, info.positions))}, counted from 0"


def _slice(text: str) -> int | slice:
    parts = [int(p) if p.strip() else None for p in text.split(":")]
    if len(parts) == 1:
        if parts[0] is None:
            raise ValueError(text)
        return parts[0]
    return slice(*parts)


def token_grid(info: LayerInfo, target: Target) -> tuple[int, tuple[int, ...]]:
    """Return the number of tokens before the patches (class, registers), and the patch grid.

    The grid is the largest one with the image's aspect ratio that leaves fewer than 17 other
    tokens.

    Raises
    ------
    UnitError
        If the layer is not a sequence of tokens, or no such grid fits.
    """
    if len(info.positions) == 1 and len(target.size) == 2:
        count = info.positions[0]
        height, width = target.size
        for prefix in range(min(17, count)):
            rows = math.isqrt(round((count - prefix) * height / width))
            if (
                rows
                and (count - prefix) % rows == 0
                and rows * width == (count - prefix) // rows * height
            ):
                return prefix, (rows, (count - prefix) // rows)
    raise UnitError(
        f"layer {info.name!r} is not a sequence of class token and patch grid: {_grid_text(info)}"
    )


def patches(tokens: Tensor, info: LayerInfo, target: Target) -> Tensor:
    """Return tokens (B, C, N) on the grid of their patches, (B, C, H, W), without the others."""
    prefix, grid = token_grid(info, target)
    return tokens[..., prefix:].unflatten(2, grid)


def position(coordinates: Sequence[int], info: LayerInfo, target: Target) -> tuple[int, ...]:
    """Return a position of the layer: by default the centre; (y, x) is also accepted for patches.

    The centre of tokens is the patch in the middle of the image.

    Raises
    ------
    UnitError
        If the layer has no such position.
    """
    sizes = info.positions
    indices = tuple(coordinates) or _centre(info, target)
    if len(indices) == 2 and len(sizes) == 1:
        prefix, grid = token_grid(info, target)
        if all(0 <= p < g for p, g in zip(indices, grid, strict=True)):
            return (prefix + indices[0] * grid[1] + indices[1],)
    elif len(indices) == len(sizes) and all(
        0 <= p < s for p, s in zip(indices, sizes, strict=True)
    ):
        return indices
    raise UnitError(
        f"no position {':'.join(map(str, indices))} in layer {info.name!r}: {_grid_text(info)}"
    )


def _centre(info: LayerInfo, target: Target) -> tuple[int, ...]:
    """Return the position in the middle of the image: the middle of a map, or of the patches."""
    axes = len(target.size)
    if len(info.positions) == 1 and axes == 2 and info.is_tokens(axes):
        try:
            return tuple(side // 2 for side in token_grid(info, target)[1])
        except UnitError:  # tokens of another geometry
            pass
    return tuple(size // 2 for size in info.positions)
