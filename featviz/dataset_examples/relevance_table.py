"""How much units contribute to another objective: relevance instead of activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from featviz.attribution.case import Case
from featviz.attribution.methods import METHODS
from featviz.attribution.prediction import predicted_logits
from featviz.attribution.propagation.concepts import chosen_units
from featviz.attribution.propagation.lrp import layer_relevance
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.objectives.scene import Scene, Target
from featviz.objectives.units import Channel, Neuron
from featviz.optim.evaluator import Evaluator
from featviz.types import Tensor

#: The rules of propagation unless others are named: those of ``attribute(method="lrp")``.
DEFAULT_RULE: str = METHODS["lrp"].options["rule"]


class RelevanceTable:
    """Computes the relevance (B, units) of units for ``goal``, for images of the model's size.

    The relevance of a channel is the sum over its positions of what layer-wise relevance
    propagation sends there, by the rules of the composite ``rule``; ``goal`` None is the logit of
    each image's predicted class. Images with the most of it show how the network uses the unit,
    which need not be where the unit is most active. [Achtibat2023]_

    Raises
    ------
    FeatvizError
        If an objective is not a channel or neuron, or there is none.
    """

    def __init__(
        self, model: Model, objectives: Sequence[Objective], goal: Objective | None, rule: str
    ) -> None:
        if not objectives:
            raise FeatvizError("give at least one objective")
        self.model, self.objectives, self._goal, self._rule = model, list(objectives), goal, rule
        self._members: dict[str, list[tuple[int, Channel | Neuron]]] = {}
        target = self.target(1)
        for index, goal in enumerate(objectives):
            units = chosen_units(goal, "examples(by='relevance')")
            if len(units) > 1:
                raise FeatvizError(f"examples(by='relevance') takes single units, not {goal}")
            units[0].bind(target)  # raises for a unit that does not exist
            self._members.setdefault(units[0].layer, []).append((index, units[0]))
        self._shared: dict[Any, Any] = {}

    def target(self, batch: int) -> Target:
        """Return the target that the objectives are bound to."""
        return Target(self.model, self.model.size, batch)

    def __call__(self, images: Tensor) -> tuple[Scene, Tensor]:
        """Return a scene that has the relevance in place of activations, and the values.

        Raises
        ------
        FeatvizError
            If an operation has no rule, or the objective does not depend on a unit's layer.
        """
        goals = (
            [self._goal] * len(images)
            if self._goal is not None
            else predicted_logits(self.model, images, 1)
        )
        each = [
            self._layers(goal, image) for goal, image in zip(goals, images.split(1), strict=True)
        ]
        maps = {name: torch.cat([relevance[name] for relevance in each]) for name in self._members}
        values = torch.empty(len(images), len(self.objectives))
        target = self.target(len(images))
        for name, members in self._members.items():
            info = target.layer(name)
            by_unit = maps[name].movedim(info.axis, 1)
            totals = by_unit.flatten(2).sum(2) if by_unit.ndim > 2 else by_unit
            for index, unit in members:
                if isinstance(unit, Channel):
                    values[:, index] = totals[:, unit.channel].cpu()
                else:
                    place: Any = (slice(None), *unit.place(target))
                    values[:, index] = by_unit[place].cpu()
        return Scene(images, maps), values

    def _layers(self, goal: Objective, image: Tensor) -> dict[str, Tensor]:
        evaluator = Evaluator(self.model, goal, self.model.size, batch_size=1)
        case = Case(evaluator, image, None, 0, {"rule": self._rule}, shared=self._shared)
        return layer_relevance(case, list(self._members))
