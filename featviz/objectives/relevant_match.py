"""Match the sorted activations of real images, as far as they are relevant to a unit."""

from __future__ import annotations

import dataclasses

import torch

from featviz.errors import FeatvizError, UnitError
from featviz.objectives import reference
from featviz.objectives.base import Objective
from featviz.objectives.matching import SortMatch, rows
from featviz.objectives.reduction import EPSILON
from featviz.objectives.scene import INPUT, Scene, Score, Target
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True, repr=False)
class Relevant(Objective):
    """See :func:`featviz.sort_match` with ``of``."""

    match: SortMatch
    objective: Objective

    @property
    def parts(self) -> tuple[Objective, ...]:  # type: ignore[override]
        return self.match, self.objective

    def needs(self, target: Target) -> tuple[str, ...]:
        # The input, to take gradients where none are recorded.
        return tuple(sorted({INPUT, self.match.layer, *self.objective.needs(target)}))

    def bind(self, target: Target) -> Score:
        layer = self.match.layer
        info = target.layer(layer)
        images = reference.pictures(self.match.pictures, target)
        some = dataclasses.replace(target, batch=len(images))
        goal = self.objective.bind(some)
        real, relevance = self._relevance(self._run(some, images), goal)
        real, relevance = rows(real, info.axis), rows(relevance, info.axis)
        wanted = _share(relevance).mul(real).sort(dim=2).values.mean(0)
        weights = relevance.relu().amax(2).mean(0)
        if not weights.max() > 0:
            raise UnitError(
                f"no activation of layer {layer!r} is relevant to {self.objective} in the images"
            )
        weights, goal = weights / weights.max(), self.objective.bind(target)

        def score(scene: Scene) -> Tensor:
            recorded = scene[layer].requires_grad
            seen = scene if recorded else self._run(target, scene[INPUT])
            units, relevance = self._relevance(seen, goal)
            share = _share(rows(relevance, info.axis))
            units = rows(scene[layer] if recorded else units, info.axis)
            found = (units * share).sort(dim=2).values
            return -((found - wanted).square().mean(2) * weights).mean(1)

        return score

    def _run(self, target: Target, images: Tensor) -> Scene:
        """Return a scene of ``images`` whose activations have a graph."""
        with torch.enable_grad():
            inputs = images.detach().requires_grad_()
            needs = [name for name in self.needs(target) if name != INPUT]
            return Scene(inputs, target.model.activations(inputs, needs))

    def _relevance(self, scene: Scene, goal: Score) -> tuple[Tensor, Tensor]:
        """Return the layer's activation and its product with the gradient, both detached."""
        units = scene[self.match.layer]
        with torch.enable_grad():
            value = goal(scene).sum()
            slopes = None
            if value.requires_grad:
                (slopes,) = torch.autograd.grad(value, units, retain_graph=True, allow_unused=True)
        if slopes is None:
            raise FeatvizError(
                f"{self.objective} does not depend on layer {self.match.layer!r}: name an earlier "
                "one"
            )
        return units.detach(), (units * slopes).detach()

    def sliced(self, here: slice) -> Objective:
        return dataclasses.replace(self, objective=self.objective.sliced(here))

    def __str__(self) -> str:
        return f"relevant({self.match}, {self.objective})"


def _share(relevance: Tensor) -> Tensor:
    """Return the positive relevance (B, C, P), of the largest in each channel."""
    positive = relevance.relu()
    return positive / positive.amax(2, keepdim=True).clamp_min(EPSILON)


def relevant(match: Objective, objective: Objective) -> Objective:
    """Return ``relevant(match, objective)``, for :func:`featviz.sort_match`.

    Raises
    ------
    FeatvizError
        If the first is no plain ``sort_match``, or the second compares samples.
    """
    if not isinstance(match, SortMatch):
        raise FeatvizError(f"relevant takes a sort_match:LAYER:PICTURES first, not {match}")
    if objective.relational:
        raise FeatvizError(f"relevant takes an objective of single samples, not {objective}")
    return Relevant(match, objective)
