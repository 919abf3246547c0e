"""What ``away`` and ``to`` ask of an attack: the loss that it raises, and when it has succeeded."""

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
    return _both(log_probability, away, to, layer)


def _margin(away: _Class, to: _Class, layer: str) -> Objective:
    return _both(margin, away, to, layer)


def _dlr(away: _Class, to: _Class, layer: str) -> Objective:
    if away is None or away == to:  # predicted as wanted: nothing to get away from
        assert to is not None
        return margin(to, layer=layer)
    return dlr(away, towards=to, layer=layer)


def _both(of: Callable[..., Objective], away: _Class, to: _Class, layer: str) -> Objective:
    if to is None:
        return -of(away, layer=layer)
    return of(to, layer=layer) if away is None else of(to, layer=layer) - of(away, layer=layer)


LOSSES = {"ce": _cross_entropy, "margin": _margin, "dlr": _dlr}


@dataclasses.dataclass(frozen=True)
class AttackCriterion:
    """What an attack raises for each image, and when each is misclassified as wanted.

    ``until`` is empty where no class is named. ``away`` and ``to`` (B,) hold class indices, -1 for
    none, ``before`` (B,) the predictions for the original images, and ``layer`` their logits.
    """

    objectives: tuple[Objective, ...]
    until: tuple[Objective, ...]
    away: Tensor
    to: Tensor
    before: Tensor
    layer: str | None

    def select(self, rows: Sequence[int]) -> AttackCriterion:
        """Return the criterion of some of the images."""
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
        """What is raised, as one objective of the batch."""
        return _joined(self.objectives)

    @property
    def success(self) -> Objective | None:
        """What is above zero where the attack has succeeded; None where no class is named."""
        return _joined(self.until) if self.until else None

    def is_met(self, predicted: Tensor) -> Tensor:
        """Return from predicted classes (B,) for which images the attack has succeeded."""
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
    """Return what is raised for each of ``images``, from what the network predicts for them now.

    Raises
    ------
    FeatvizError
        For an unknown loss, a class that the network does not have, or no class to lead away from.
    """
    if loss not in LOSSES:
        raise FeatvizError(
            f"no loss {loss!r}: it is {', '.join(LOSSES)}{did_you_mean(loss, LOSSES)}"
        )
    size = tuple(images.shape[2:])
    sides = [_read(goal, len(images), name) for name, goal in (("away", away), ("to", to))]
    layer = _layer(model, size, [goal for side in sides if side for goal in side])
    predicted = predicted_classes(model, images, layer, batch_size=batch_size, traces=traces)
    return _criterion(model, size, sides, loss, predicted, layer)


def _read(goal: Goal, count: int, name: str) -> list[Objective] | None:
    """Return one objective for each image: of a class by its index, of a text, of one for all."""
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
            raise FeatvizError(f"{name} takes objectives of single images, not {objective}")
    return objectives


def _layer(model: Model, size: tuple[int, ...], goals: Iterable[Objective]) -> str | None:
    """Return the layer with the classes: the one that is named, the model's, or None."""
    named = {g.layer or model.logits for g in goals if isinstance(g, ClassLogit)}
    if len(named) > 1:
        raise FeatvizError(f"classes of one layer only, not of {' and '.join(sorted(named))}")
    return named.pop() if named else logits_layer(model, size)


def _criterion(
    model: Model,
    size: tuple[int, ...],
    sides: Sequence[list[Objective] | None],
    loss: str,
    predicted: Tensor,
    layer: str | None,
) -> AttackCriterion:
    count = len(predicted)
    away, to = sides
    if away is None and to is None:
        if layer is None:
            raise FeatvizError("the network has no class logits: say what to attack, away= or to=")
        away = [ClassLogit(int(p)) for p in predicted]
    objectives, until, classes = [], [], []
    target = Target(model, size, 1)
    for i in range(count):
        pair = [None if side is None else side[i] for side in (away, to)]
        named: list[_Class] = [p.target if isinstance(p, ClassLogit) else None for p in pair]
        source, wanted = (model.class_index(n) if isinstance(n, str) else n for n in named)
        place = next((p.layer for p in pair if isinstance(p, ClassLogit)), "")
        objective: Objective | None = None
        if source is not None or wanted is not None:
            if source is not None and source == wanted:
                raise FeatvizError(f"class {source} is both away and to")
            start = int(predicted[i]) if loss == "dlr" and source is None else source
            objective = LOSSES[loss](start, wanted, place)
            until.append(_both(margin, None if wanted is not None else source, wanted, place))
        for sign, part in ((-1, pair[0]), (1, pair[1])):
            if part is not None and not isinstance(part, ClassLogit):
                objective = sign * part if objective is None else objective + sign * part
        assert objective is not None
        objective.bind(target)  # a class that is not there is named before the first step
        objectives.append(objective)
        classes.append([-1 if n is None else n for n in (source, wanted)])
    if until and len(until) < count:
        raise FeatvizError("either all images are attacked by a class, or none")
    columns = torch.tensor(classes)
    return AttackCriterion(
        tuple(objectives), tuple(until), columns[:, 0], columns[:, 1], predicted, layer
    )
