"""The loss that an attack maximizes for ``away`` and ``to``, and its success criterion."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch

from featviz.errors import FeatvizError, did_you_mean
from featviz.networks.model import Model
from featviz.objectives import Objective, dlr, log_probability, margin, per_sample
from featviz.objectives import objective as as_objective
from featviz.objectives.classes import ClassLogit
from featviz.objectives.scene import Target
from featviz.optim.collecting import logits_layer, predicted_classes
from featviz.optim.tracing import TraceCache
from featviz.types import Tensor

#: A class, by index or as an objective, or any other objective; one for all images or a list.
Goal: TypeAlias = Objective | str | int | Sequence[Objective | str | int] | None
_Class: TypeAlias = int | str | None


def _cross_entropy(away: _Class, to: _Class, layer: str) -> Objective:
    return _difference(log_probability, away, to, layer)


def _margin(away: _Class, to: _Class, layer: str) -> Objective:
    return _difference(margin, away, to, layer)


def _dlr(away: _Class, to: _Class, layer: str) -> Objective:
    if away is None or away == to:  # no class to lead away from
        assert to is not None
        return margin(to, layer=layer)
    return dlr(away, towards=to, layer=layer)


def _difference(
    objective_of: Callable[..., Objective], away: _Class, to: _Class, layer: str
) -> Objective:
    if to is None:
        return -objective_of(away, layer=layer)
    if away is None:
        return objective_of(to, layer=layer)
    return objective_of(to, layer=layer) - objective_of(away, layer=layer)


LOSSES = {"ce": _cross_entropy, "margin": _margin, "dlr": _dlr}


@dataclasses.dataclass(frozen=True)
class AttackCriterion:
    """The objective to maximize for each image, and the criterion for its success.

    ``until`` is empty if no class is given. ``away`` and ``to`` (B,) are class indices, or -1 for
    none; ``before`` (B,) are the predicted classes of the originals, ``layer`` has the logits.
    """

    objectives: tuple[Objective, ...]
    until: tuple[Objective, ...]
    away: Tensor
    to: Tensor
    before: Tensor
    layer: str | None

    def select(self, rows: Sequence[int]) -> AttackCriterion:
        """Return the criterion of the images at ``rows``."""
        return dataclasses.replace(
            self,
            objectives=tuple(self.objectives[i] for i in rows),
            until=tuple(self.until[i] for i in rows) if self.until else (),
            away=self.away[list(rows)],
            to=self.to[list(rows)],
            before=self.before[list(rows)],
        )

    @property
    def objective(self) -> Objective:
        """The objective to maximize, for the whole batch."""
        return _joined(self.objectives)

    @property
    def success(self) -> Objective | None:
        """The objective that is above zero for images that succeeded; None if no class is given."""
        return _joined(self.until) if self.until else None

    def is_met(self, predicted: Tensor) -> Tensor:
        """Return for which images (B,) the attack succeeded, given their predicted classes (B,)."""
        return torch.where(self.to >= 0, predicted == self.to, predicted != self.away)


def _joined(members: tuple[Objective, ...]) -> Objective:
    return members[0] if len(set(members)) == 1 else per_sample(members)


def attack_criterion(
    model: Model,
    images: Tensor,
    away: Goal,
    to: Goal,
    loss: str,
    *,
    batch_size: int | None = None,
    traces: TraceCache | None = None,
) -> AttackCriterion:
    """Return the criterion of an attack on ``images``, using their currently predicted classes.

    Raises
    ------
    FeatvizError
        For an unknown loss or class, or if there is no class to lead away from.
    """
    if loss not in LOSSES:
        raise FeatvizError(f"no loss {loss!r}: use {', '.join(LOSSES)}{did_you_mean(loss, LOSSES)}")
    size = tuple(images.shape[2:])
    goals = [_read(value, len(images), name) for name, value in (("away", away), ("to", to))]
    layer = _layer(model, size, [o for objectives in goals if objectives for o in objectives])
    predicted = predicted_classes(model, images, layer, batch_size=batch_size, traces=traces)
    return _criterion(model, size, goals, loss, predicted, layer)


def _read(goal: Goal, count: int, name: str) -> list[Objective] | None:
    """Return one objective for each image from class indices, texts or objectives."""
    if goal is None:
        return None
    members: list[Any] = list(goal) if isinstance(goal, (list, tuple)) else [goal] * count
    if isinstance(goal, Tensor):
        members = goal.tolist() if goal.ndim else [int(goal)] * count
    if len(members) != count:
        raise FeatvizError(f"{name} has {len(members)} objectives for {count} images")
    objectives = [ClassLogit(m) if isinstance(m, int) else as_objective(m) for m in members]
    for objective in objectives:
        if objective.relational:
            raise FeatvizError(f"{name} needs objectives of single images, not {objective}")
    return objectives


def _layer(model: Model, size: tuple[int, ...], objectives: Iterable[Objective]) -> str | None:
    """Return the layer with the logits: the one in the objectives, the model's, or None."""
    layers = {o.layer or model.logits for o in objectives if isinstance(o, ClassLogit)}
    if len(layers) > 1:
        raise FeatvizError(f"classes must be of one layer, not of {' and '.join(sorted(layers))}")
    return layers.pop() if layers else logits_layer(model, size)


def _criterion(
    model: Model,
    size: tuple[int, ...],
    goals: Sequence[list[Objective] | None],
    loss: str,
    predicted: Tensor,
    layer: str | None,
) -> AttackCriterion:
    count = len(predicted)
    away, to = goals
    if away is None and to is None:
        if layer is None:
            model.layers(size).find(model.logits)  # says which of several outputs may be meant
            raise FeatvizError("the network has no class logits: give an objective, away= or to=")
        away = [ClassLogit(int(p)) for p in predicted]
    objectives, until, classes = [], [], []
    target = Target(model, size, 1)
    for i in range(count):
        away_to = [None if goal is None else goal[i] for goal in (away, to)]
        targets: list[_Class] = [p.target if isinstance(p, ClassLogit) else None for p in away_to]
        away_class, to_class = (model.class_index(n) if isinstance(n, str) else n for n in targets)
        class_layer = next((p.layer for p in away_to if isinstance(p, ClassLogit)), "")
        objective: Objective | None = None
        if away_class is not None or to_class is not None:
            if away_class is not None and away_class == to_class:
                raise FeatvizError(f"class {away_class} is both away and to")
            reference = int(predicted[i]) if loss == "dlr" and away_class is None else away_class
            objective = LOSSES[loss](reference, to_class, class_layer)
            margin_away = None if to_class is not None else away_class
            until.append(_difference(margin, margin_away, to_class, class_layer))
        for sign, part in ((-1, away_to[0]), (1, away_to[1])):
            if part is not None and not isinstance(part, ClassLogit):
                objective = sign * part if objective is None else objective + sign * part
        assert objective is not None
        objective.bind(target)  # reports an invalid class before the first step
        objectives.append(objective)
        classes.append([-1 if n is None else n for n in (away_class, to_class)])
    if until and len(until) < count:
        raise FeatvizError("give a class for all images, or for none")
    columns = torch.tensor(classes)
    return AttackCriterion(
        tuple(objectives), tuple(until), columns[:, 0], columns[:, 1], predicted, layer
    )
