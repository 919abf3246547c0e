"""A unit's facet: what it responds to, as far as an earlier layer points along a probe."""

from __future__ import annotations

import dataclasses

from featviz.codec import format_number
from featviz.errors import FeatvizError
from featviz.objectives.base import Objective
from featviz.objectives.directions import Direction, vector_of
from featviz.objectives.own_pass import bind_slopes
from featviz.objectives.scene import INPUT, Scene, Score, Target
from featviz.types import Tensor
from featviz.validation import real

#: How much the facet counts by default.
WEIGHT = 10.0


@dataclasses.dataclass(frozen=True, repr=False)
class Faceted(Objective):
    """See :func:`featviz.recipes.faceted`."""

    objective: Objective
    facet: Direction
    weight: float

    @property
    def parts(self) -> tuple[Objective, ...]:  # type: ignore[override]
        return self.objective, self.facet

    def needs(self, target: Target) -> tuple[str, ...]:
        # The gradient is that of a pass of its own, which needs the input.
        return tuple(sorted({INPUT, self.facet.layer, *self.objective.needs(target)}))

    def bind(self, target: Target) -> Score:
        layer = self.facet.layer
        score, info = self.objective.bind(target), target.layer(layer)
        slopes = bind_slopes(self.objective, layer, target)
        probe = vector_of(self.facet.vector, info, target)
        probe = probe / probe.norm().clamp_min(1e-12)
        probe = probe.reshape(*probe.shape, *(1 for _ in info.positions[probe.ndim - 1 :]))

        def value(scene: Scene) -> Tensor:
            whole = score(scene)
            if not whole.requires_grad:  # a finished image is scored by the unit
                return whole
            _, gradient = slopes(scene[INPUT])
            part = (scene[layer] * gradient).movedim(info.axis, 1) * probe
            return whole + self.weight * part.flatten(1).sum(1)

        return value

    def sliced(self, here: slice) -> Objective:
        return dataclasses.replace(self, objective=self.objective.sliced(here))

    def __str__(self) -> str:
        return f"faceted({self.objective}, {self.facet}, {format_number(self.weight)})"


def facet_of(objective: Objective, facet: Objective, weight: float = WEIGHT) -> Objective:
    """Return ``faceted(objective, facet, weight)``, for :func:`featviz.recipes.faceted`.

    Raises
    ------
    FeatvizError
        If the facet is no plain ``direction``, or the objective compares samples.
    """
    if not isinstance(facet, Direction) or facet != Direction(facet.layer, facet.vector):
        raise FeatvizError(f"a facet is a direction:LAYER:VECTOR without options, not {facet}")
    if objective.relational:
        raise FeatvizError(f"faceted takes an objective of single samples, not {objective}")
    return Faceted(objective, facet, real("weight", weight, 0, 1e9))
