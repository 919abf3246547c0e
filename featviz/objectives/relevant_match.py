"""Match the sorted activations of real images, as far as they are relevant to a unit."""

from __future__ import annotations

import dataclasses

import torch

from featviz.errors import FeatvizError, UnitError
from featviz.objectives import reference
from featviz.objectives.base import Objective
from featviz.objectives.group import PerSample
from featviz.objectives.matching import SortMatch, rows
from featviz.objectives.own_pass import bind_slopes
from featviz.objectives.scene import INPUT, Scene, Score, Target
from featviz.types import Tensor

#: Pictures in one pass.
_CHUNK = 8


@dataclasses.dataclass(frozen=True, repr=False)
class Relevant(Objective):
    """See :func:`featviz.sort_match` with ``of``."""

    match: SortMatch
    objective: Objective

    @property
    def parts(self) -> tuple[Objective, ...]:  # type: ignore[override]
        return self.match, self.objective

    def needs(self, target: Target) -> tuple[str, ...]:
        # The relevance is that of a pass of its own, which needs the input.
        return tuple(sorted({INPUT, self.match.layer, *self.objective.needs(target)}))

    def bind(self, target: Target) -> Score:
        axis = target.layer(self.match.layer).axis
        slopes = bind_slopes(self.objective, self.match.layer, target)
        images = reference.pictures(self.match.pictures, target)
        matched, largest = [], []
        for chunk in images.split(_CHUNK):
            units, relevance = _relevance(*slopes(chunk), axis)
            matched.append((units * _share(relevance)).sort(dim=2).values)
            largest.append(relevance.relu().amax(2))
        wanted, weights = torch.cat(matched).mean(0), torch.cat(largest).mean(0)
        if not weights.max() > 0:
            raise UnitError(
                f"no activation of layer {self.match.layer!r} is relevant to {self.objective} in "
                "the images"
            )
        weights = weights / weights.max()

        def score(scene: Scene) -> Tensor:
            _, relevance = _relevance(*slopes(scene[INPUT]), axis)
            found = rows(scene[self.match.layer], axis).to(relevance.dtype) * _share(relevance)
            found = found.sort(dim=2).values
            return -((found - wanted).square().mean(2) * weights).mean(1)

        return score

    def __str__(self) -> str:
        return f"relevant({self.match}, {self.objective})"


def _relevance(units: Tensor, gradient: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return activations and their products with the gradient, (B, units, positions)."""
    exact = torch.promote_types(units.dtype, torch.float32)
    units = rows(units.to(exact), axis)
    return units, units * rows(gradient.to(exact), axis)


def _share(relevance: Tensor) -> Tensor:
    """Return the positive relevance (B, C, P), of the largest in each channel."""
    positive = relevance.relu()
    return positive / positive.amax(2, keepdim=True).clamp_min(torch.finfo(relevance.dtype).tiny)


def relevant(match: Objective, objective: Objective) -> Objective:
    """Return ``relevant(match, objective)``, for :func:`featviz.sort_match`.

    Raises
    ------
    FeatvizError
        If the first is no plain ``sort_match``, or the second is not one objective of single
        samples.
    """
    if not isinstance(match, SortMatch):
        raise FeatvizError(f"relevant takes a sort_match:LAYER:PICTURES first, not {match}")
    if isinstance(objective, PerSample):
        raise FeatvizError(
            f"relevant takes one objective: give a list of relevant(…), not {objective}"
        )
    if objective.relational:
        raise FeatvizError(f"relevant takes an objective of single samples, not {objective}")
    return Relevant(match, objective)
