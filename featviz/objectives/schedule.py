"""Weights that change during a run."""

from __future__ import annotations

import dataclasses
import math

import torch

from featviz.codec import format_number
from featviz.errors import FeatvizError
from featviz.objectives.base import Objective
from featviz.objectives.scene import Scene, Score, Target
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True, repr=False)
class Ramp(Objective):
    """See :func:`ramp`."""

    first: float
    last: float
    begin: float = 0.0
    end: float = 1.0

    def bind(self, target: Target) -> Score:
        def score(scene: Scene) -> Tensor:
            images = scene.images
            progress = torch.as_tensor(scene.progress, dtype=images.dtype, device=images.device)
            fraction = ((progress - self.begin) / (self.end - self.begin)).clamp(0, 1)
            return (self.first + (self.last - self.first) * fraction).expand(len(images))

        return score

    def __str__(self) -> str:
        numbers = [self.first, self.last]
        if (self.begin, self.end) != (0, 1):
            numbers += [self.begin, self.end]
        return f"ramp({', '.join(map(format_number, numbers))})"


def ramp(first: float, last: float, begin: float = 0, end: float = 1) -> Objective:
    """Return a weight that goes linearly from ``first`` to ``last`` between two points of the run.

    ``channel - ramp(0, 1e-3) * total_variation()`` fades a penalty in. ``begin`` and ``end`` are
    fractions of the run; outside a run, as in ``o(model, images)``, the value is ``last``.

    Raises
    ------
    FeatvizError
        Unless 0 <= begin < end <= 1, or if a value is not finite.
    """
    if not (math.isfinite(first) and math.isfinite(last)):
        raise FeatvizError(f"ramp needs finite numbers, not {first} and {last}")
    if not 0 <= begin < end <= 1:
        raise FeatvizError(f"ramp needs 0 <= begin < end <= 1, not {begin} and {end}")
    return Ramp(float(first), float(last), float(begin), float(end))
