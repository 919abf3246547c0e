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
from featviz.objectives.units import Where, where_text
from featviz.types import LayerInfo, Tensor

#: What a direction may be in Python: numbers, or the name of a file.
Vector = str | Path | Sequence[float] | np.ndarray | Tensor
#: The least cosine that a power is taken of, as in lucid: angles beyond still have a gradient.
LEAST_COSINE = 0.1


def _vector(source: str | tuple[float, ...], info: LayerInfo, target: Target) -> Tensor:
    """Return the numbers as (C,) or (C, *positions) on the target's device."""
    vector = torch.as_tensor(arrays.load(source), dtype=torch.float32, device=target.device)
    whole = (info.units, *info.positions)
    if tuple(vector.shape) == info.shape != whole:  # in the layer's own order, units last
        vector = vector.movedim(info.axis - 1, 0)
    if tuple(vector.shape) not in ((info.units,), whole):
        raise UnitError(
            f"direction has {'x'.join(map(str, vector.shape))} numbers, but layer {info.name!r} "
            f"{info.units} units" + (f" or {'x'.join(map(str, whole))}" if info.positions else "")
        )
    return vector


def dot_and_cosine(units: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """Return the dot product and cosine of (B, C, *positions) with (C,) or (C, *positions).

    A vector is compared at each position: (B, *positions); a whole activation once: (B,).
    """
    along = along.to(units.dtype)
    if along.ndim == 1:
        dot = torch.tensordot(units, along, dims=([1], [0]))
        lengths = (units.square().sum(1) + reduction.EPSILON).sqrt()
    else:
        dot = units.flatten(1) @ along.flatten()
        lengths = (units.flatten(1).square().sum(1) + reduction.EPSILON).sqrt()
    size = (along.square().sum() + reduction.EPSILON).sqrt()
    return dot, dot / (lengths * size)


@dataclasses.dataclass(frozen=True, repr=False)
class Direction(Unit):
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
            raise UnitError(f"no measure {self.measure!r}: it is dot or cosine")
        along = _vector(self.vector, info, target)
        reduce = reduction.reducer(self.reduce, self.where, info, target)
        if along.ndim > 1 and self.where:
            raise UnitError("a direction over a whole activation takes no where=: weight the array")

        def score(scene: Scene) -> Tensor:
            dot, cosine = dot_and_cosine(scene[self.layer].movedim(info.axis, 1), along)
            value = cosine if self.measure == "cosine" else dot
            if self.cosine_power:
                value = value * cosine.clamp_min(LEAST_COSINE) ** self.cosine_power
            return reduce(value, 1) if along.ndim == 1 else value

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
        along, away = (_vector(v, info, target) for v in (self.along, self.away))
        if not (along.any() and away.any()):
            raise UnitError("angled_direction takes vectors that are not zero")
        reduce = reduction.reducer(self.reduce, self.where, info, target)

        def score(scene: Scene) -> Tensor:
            units = scene[self.layer].movedim(info.axis, 1)
            towards, off = (dot_and_cosine(units, v / v.norm())[0] for v in (along, away))
            value = towards - self.weight * off.abs()
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
    """Return the mean over positions of the activations' dot product with a vector.

    ``vector`` has one number for each unit of the layer, (C,), or is a whole activation,
    (C, *positions); it is not normalized. A path names an ``.npy`` or ``.safetensors`` file, as
    in ``direction:_blocks.10:vec.npy``; ``"sae.safetensors#W_dec[17]"`` is a row of a matrix,
    such as a feature of a sparse autoencoder. ``measure`` is ``dot`` or ``cosine``. With
    ``cosine_power`` n the value is multiplied by max(cosine, 0.1)^n, which asks for activations
    that point that way and do nothing else. ``position`` looks at one place only; ``reduce``
    and ``where`` are :func:`~featviz.channel`'s. [Carter2019]_

    Raises
    ------
    UnitError
        If the numbers are no vector, or the measure is unknown.
    """
    if measure not in ("dot", "cosine"):
        raise UnitError(f"no measure {measure!r}: it is dot or cosine")
    if position is not None:
        where = "@" + ",".join(map(str, position))
    return Direction(
        str(layer),
        arrays.keep(vector, "a direction"),
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
    """Return how far the activations go along one vector without going along another.

    At each position, x·a/|a| - weight |x·b/|b||, with a ``along`` and b ``away``. Both are
    vectors as in :func:`direction`. After captum.optim's angled directions, which weight by the
    cosine instead: that is ``direction(…, cosine_power=n)``.
    """
    return AngledDirection(
        str(layer),
        arrays.keep(along, "a direction"),
        arrays.keep(away, "a direction"),
        float(weight),
        reduction.check(reduce),
        where_text(where),
    )
