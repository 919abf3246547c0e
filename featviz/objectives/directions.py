"""Directions in activation space: vectors, whole activations, angles between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from featviz.errors import UnitError
from featviz.objectives import arrays, reduction
from featviz.objectives.base import Objective
from featviz.objectives.scene import Scene, Score, Target
from featviz.objectives.unit import Unit, data, real, word
from featviz.objectives.units import Reduced, Where, where_text
from featviz.types import LayerInfo, Tensor

#: A direction in Python: numbers, or the name of a file.
Vector = str | Path | Sequence[float] | np.ndarray | Tensor
#: Lower bound of a cosine that is raised to a power, as in lucid: the dot product it multiplies
#: keeps a gradient at any angle.
MIN_COSINE = 0.1


def vector_of(source: str | tuple[float, ...], info: LayerInfo, target: Target) -> Tensor:
    """Return the vector as (C,) or (C, *positions) on the target's device."""
    vector = torch.as_tensor(arrays.load(source), dtype=torch.float32, device=target.device)
    full = (info.units, *info.positions)
    if tuple(vector.shape) == info.shape != full:  # in the layer's own axis order, units last
        vector = vector.movedim(info.axis - 1, 0)
    if tuple(vector.shape) not in ((info.units,), full):
        raise UnitError(
            f"direction has {'x'.join(map(str, vector.shape))} numbers, but layer {info.name!r} "
            f"has {info.units} units"
            + (f" or {'x'.join(map(str, full))}" if info.positions else "")
        )
    return vector


def dot_and_cosine(units: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """Return the dot product and cosine of (B, C, *positions) with (C,) or (C, *positions).

    A vector is compared at each position: (B, *positions); a whole activation once: (B,).
    """
    vector = vector.to(units.dtype)
    if vector.ndim == 1:
        dot = torch.tensordot(units, vector, dims=([1], [0]))
        norms = (units.square().sum(1) + reduction.EPSILON).sqrt()
    else:
        dot = units.flatten(1) @ vector.flatten()
        norms = (units.flatten(1).square().sum(1) + reduction.EPSILON).sqrt()
    vector_norm = (vector.square().sum() + reduction.EPSILON).sqrt()
    return dot, dot / (norms * vector_norm)


@dataclasses.dataclass(frozen=True, repr=False)
class Direction(Reduced):
    """See :func:`direction`."""

    kind = "direction"
    layer: str = word()
    vector: str | tuple[float, ...] = data()
    measure: str = word("dot")
    cosine_power: float = real(0.0)
    reduce: str = word("mean")
    where: str = word("")

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        if self.measure not in ("dot", "cosine"):
            raise UnitError(f"no measure {self.measure!r}; known: dot, cosine")
        vector = vector_of(self.vector, info, target)
        reduce = reduction.reducer(self.reduce, self.where, info, target)
        if vector.ndim > 1 and self.where:
            raise UnitError(
                "a direction over a whole activation takes no where=: weight the array instead"
            )

        def score(scene: Scene) -> Tensor:
            dot, cosine = dot_and_cosine(scene[self.layer].movedim(info.axis, 1), vector)
            value = cosine if self.measure == "cosine" else dot
            if self.cosine_power:
                value = value * cosine.clamp_min(MIN_COSINE) ** self.cosine_power
            return reduce(value, 1) if vector.ndim == 1 else value

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class AngledDirection(Unit):
    """See :func:`angled_direction`."""

    kind = "angled_direction"
    layer: str = word()
    along: str | tuple[float, ...] = data()
    away: str | tuple[float, ...] = data()
    weight: float = real(1.0)
    reduce: str = word("mean")
    where: str = word("")

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        along, away = (vector_of(v, info, target) for v in (self.along, self.away))
        if not (along.any() and away.any()):
            raise UnitError("angled_direction needs nonzero vectors")
        reduce = reduction.reducer(self.reduce, self.where, info, target)

        def score(scene: Scene) -> Tensor:
            units = scene[self.layer].movedim(info.axis, 1)
            along_dot, away_dot = (dot_and_cosine(units, v / v.norm())[0] for v in (along, away))
            value = along_dot - self.weight * away_dot.abs()
            return reduce(value, 1) if value.ndim > 1 else value

        return score


def direction(
    layer: str,
    vector: Vector,
    *,
    measure: str = "dot",
    cosine_power: float = 0,
    reduce: str = "mean",
    where: Where = None,
    position: tuple[int, ...] | None = None,
) -> Objective:
    """Return the mean over positions of the dot product of the activations with a vector.

    ``vector`` has one number per unit of the layer, (C,), or is a whole activation,
    (C, *positions); it is not normalized. A path names an ``.npy`` or ``.safetensors`` file, as in
    ``direction:_blocks.10:vec.npy``; ``"sae.safetensors#W_dec[17]"`` is a row of a matrix, such as
    a feature of a sparse autoencoder. ``measure`` is ``dot`` or ``cosine``. With ``cosine_power`` n
    the value is multiplied by max(cosine, 0.1)^n, which favours activations in that direction and
    no other. ``position`` selects a single position; ``reduce`` and ``where`` are as in
    :func:`~featviz.channel`. [Carter2019]_

    Raises
    ------
    UnitError
        If ``vector`` is not a valid array or file name, or the measure is unknown.
    """
    if measure not in ("dot", "cosine"):
        raise UnitError(f"no measure {measure!r}; known: dot, cosine")
    if position is not None:
        where = "@" + ",".join(map(str, position))
    return Direction(
        str(layer),
        arrays.register(vector, "a direction"),
        measure,
        float(cosine_power),
        reduction.check(reduce),
        where_text(where),
    )


def angled_direction(
    layer: str,
    along: Vector,
    away: Vector,
    *,
    weight: float = 1,
    reduce: str = "mean",
    where: Where = None,
) -> Objective:
    """Return how strongly the activations point along one vector but not along another.

    At each position, x·a/|a| - weight |x·b/|b||, where a is ``along`` and b is ``away``. Both are
    vectors as in :func:`direction`. Based on captum.optim's angled directions, which weight by the
    cosine instead: for that, use ``direction(…, cosine_power=n)``.
    """
    return AngledDirection(
        str(layer),
        arrays.register(along, "a direction"),
        arrays.register(away, "a direction"),
        float(weight),
        reduction.check(reduce),
        where_text(where),
    )
