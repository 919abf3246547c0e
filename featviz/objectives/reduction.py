"""Which positions of a response map count, and how they become one number a sample."""

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
#: Keeps the gradient of a square root finite where everything is zero.
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
    """Return the map of responses (B, …, *positions) and the number of axes before positions.

    ``mean``, ``sum``, ``max``, ``mean_square``, ``sum_square``, ``norm`` (L2) or ``topN``, the
    mean of the N largest; all over every axis but the batch, and over the positions that
    ``where`` selects, by its weights. A norm's gradient at zero is zero.
    """
    weights = weights_of(where, info, target)

    def reduce(values: Tensor, lead: int = 1) -> Tensor:
        if weights is None:
            flat, share = values.reshape(len(values), -1), None
        else:
            shape = (*(1 for _ in range(lead)), *weights.shape)
            spread = weights.to(values.dtype).reshape(shape).expand(values.shape)
            flat, share = values.reshape(len(values), -1), spread.reshape(len(values), -1)
        return _reduce(name, flat, share)

    return reduce


def _reduce(name: str, values: Tensor, share: Tensor | None) -> Tensor:
    if name in ("mean_square", "sum_square", "norm"):
        values = values.square()
    if name == "max" or name.startswith("top"):
        if share is not None:
            values = values.masked_fill(share == 0, -math.inf)
        if name == "max":
            return values.amax(1)
        count = values.shape[1] if share is None else int((share[0] != 0).sum())
        return values.topk(min(int(name[3:]), count), dim=1).values.mean(1)
    if share is not None:
        values = values * share
    if name in ("mean", "mean_square"):
        return values.mean(1) if share is None else values.sum(1) / share.sum(1)
    total = values.sum(1)
    return (total + EPSILON).sqrt() if name == "norm" else total


def weights_of(where: str, info: LayerInfo, target: Target) -> Tensor | None:
    """Return the weight of each position, or None where all count alike.

    ``where`` is ``cls`` (the first token), ``patches`` (the tokens that lie on the image),
    slices as in numpy (``"2:5,3:7"``, ``"0"``), one position (``"@3,5"``, of patches
    too), or an array or ``.npy`` file of weights.

    Raises
    ------
    UnitError
        If it does not fit the layer's positions, or selects nothing.
    """
    if not where:
        return None
    sizes = info.positions
    if where in ("cls", "patches"):
        prefix, grid = token_grid(info, target)
        weights = torch.zeros(sizes)
        if where == "cls" and not prefix:
            raise UnitError(f"layer {info.name!r} has no class token: all {sizes[0]} are patches")
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
                f"no positions {where!r} in layer {info.name!r}: {_map(info)}"
            ) from None
    else:
        weights = torch.as_tensor(arrays.load(where), dtype=torch.float32)
        if tuple(weights.shape) != sizes:
            raise UnitError(
                f"mask {where!r} has shape {tuple(weights.shape)}, but layer {info.name!r}: "
                f"{_map(info)}"
            )
    if not (weights >= 0).all() or not weights.any():
        raise UnitError(f"mask {where!r} selects nothing of layer {info.name!r}: {_map(info)}")
    return weights.to(target.device)


def _map(info: LayerInfo) -> str:
    if not info.positions:
        return "it is without positions"
    return f"its map is {'x'.join(map(str, info.positions))}, counted from 0"


def _slice(text: str) -> int | slice:
    parts = [int(p) if p.strip() else None for p in text.split(":")]
    if len(parts) == 1:
        if parts[0] is None:
            raise ValueError(text)
        return parts[0]
    return slice(*parts)


def token_grid(info: LayerInfo, target: Target) -> tuple[int, tuple[int, ...]]:
    """Return how many tokens come before the patches (class, registers), and the patches' grid.

    The grid is the largest with the aspect of the image that leaves fewer than 17 others.

    Raises
    ------
    UnitError
        If the layer is no sequence of tokens, or no such grid fits.
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
    raise UnitError(f"layer {info.name!r} is no class token and grid of patches: {_map(info)}")


def position(given: Sequence[int], info: LayerInfo, target: Target) -> tuple[int, ...]:
    """Return a position of the layer: the centre if none is given, (y, x) of patches too.

    Raises
    ------
    UnitError
        If the layer has no such position.
    """
    sizes = info.positions
    place = tuple(given) or tuple(size // 2 for size in sizes)
    if len(place) == 2 and len(sizes) == 1:
        prefix, grid = token_grid(info, target)
        if all(0 <= p < g for p, g in zip(place, grid, strict=True)):
            return (prefix + place[0] * grid[1] + place[1],)
    elif len(place) == len(sizes) and all(0 <= p < s for p, s in zip(place, sizes, strict=True)):
        return place
    raise UnitError(f"no position {':'.join(map(str, place))} in layer {info.name!r}: {_map(info)}")
