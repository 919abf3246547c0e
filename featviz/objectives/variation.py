"""Total variation: how much neighbouring positions differ, at one scale or at several."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch.nn import functional as F

from featviz.errors import UnitError
from featviz.objectives.base import Objective
from featviz.objectives.penalties import spatial_axes, sum_per_sample
from featviz.objectives.reduction import EPSILON
from featviz.objectives.scene import IMAGE, Scene, Score, Target
from featviz.objectives.unit import Unit, whole, word
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True, repr=False)
class TotalVariation(Unit):
    """See :func:`total_variation`."""

    kind = "total_variation"
    layer: str = word(IMAGE)

    def bind(self, target: Target) -> Score:
        axes = spatial_axes(self, target)

        def score(scene: Scene) -> Tensor:
            values = scene[self.layer]
            total = values.new_zeros(len(values))
            for axis in range(2, 2 + axes):
                total = total + sum_per_sample(values.diff(dim=axis).abs())
            return total

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class MultiscaleVariation(Unit):
    """See :func:`multiscale_variation`."""

    kind = "multiscale_variation"
    scalable = True
    layer: str = word(IMAGE)
    scales: int = whole(5)

    def bind(self, target: Target) -> Score:
        axes = spatial_axes(self, target)
        if self.scales < 1:
            raise UnitError(f"multiscale_variation: scales must be positive, not {self.scales}")
        side = min(target.layer(self.layer).positions)
        scales = min(self.scales, max(side.bit_length() - 1, 1))
        if side < 2:
            raise UnitError(f"multiscale_variation needs maps of 2 and more positions, not {side}")
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]

        def score(scene: Scene) -> Tensor:
            values = scene[self.layer]
            total = _gradient_magnitude(values, axes)
            for _ in range(1, scales):
                values = pool(values, 2)
                total = total + _gradient_magnitude(values, axes)
            return total / scales

        return score


def _gradient_magnitude(values: Tensor, axes: int) -> Tensor:
    """Return the mean length of the gradients of (B, C, *spatial), over all channels: (B,)."""
    ends: list[Any] = [slice(1, None)] * axes
    inner = values[(..., *ends)]
    squares = inner.new_zeros(())
    for axis in range(2, 2 + axes):
        before = [*ends]
        before[axis - 2] = slice(None, -1)
        squares = squares + (inner - values[(..., *before)]).square().sum(1)
    return (squares + EPSILON).sqrt().flatten(1).mean(1)


def total_variation(*, layer: str = IMAGE) -> Objective:
    """Return the sum of absolute differences between neighbours. [Mahendran2015]_."""
    return TotalVariation(layer)


def multiscale_variation(*, scales: int = 5, layer: str = IMAGE) -> Objective:
    """Return the mean length of the gradient, averaged over ``scales`` halvings of the size.

    The gradient counts all channels together. At one scale this is the isotropic total variation
    [Rudin1992]_ by position and does not depend on the size; with several, a large soft blob costs
    as much as fine grain, so that surfaces become calm at every scale while edges remain. Small
    maps have fewer scales, down to two positions.
    """
    return MultiscaleVariation(layer, scales)
