"""What ``away`` and ``to`` ask of an attack: what it raises, and when it has succeeded."""

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
from featviz.optim.evaluator import WIDE, Traces
from featviz.types import Tensor

Wish: TypeAlias = Objective | str | int | Sequence[Objective | str | int] | None
_Class: TypeAlias = int | str | None


def _ce(away: _Class, to: _Class, layer: str) -> Objective:
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


LOSSES = {"ce": _ce, "margin": _margin, "dlr": _dlr}


@dataclasses.dataclass(frozen=True)
class Aim:
    """What an attack raises for each picture, when each is done, and the classes that it names.

    ``until`` is empty where no class is named. ``away`` and ``to`` hold class indices, -1 for none,
    and ``before`` the predicted ones.
    """

    objectives: tuple[Objective, ...]
    until: tuple[Objective, ...]
    away: Tensor
    to: Tensor
    before: Tensor
    layer: str | None

    def at(self, rows: Sequence[int]) -> Aim:
        """Return the aim of some of the pictures."""
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

    def reached(self, predicted: Tensor) -> Tensor:
        """Tell from predicted classes (B,) which pictures the attack has succeeded with."""
        return torch.where(self.to >= 0, predicted == self.to, predicted != self.away)


def _joined(members: tuple[Objective, ...]) -> Objective:
    return members[0] if len(set(members)) == 1 else per_sample(members)


def check_images(model: Model, images: Tensor, verb: str) -> None:
    """Raise :class:`FeatvizError` unless there are images for ``model``, all in [0, 1]."""
    model.check_images(images)
    if not len(images) or not 0 <= images.min() <= images.max() <= 1:
        raise FeatvizError(f"{verb} takes at least one image with values in [0, 1]")


def predict(
    model: Model,
    images: Tensor,
    layer: str | None,
    batch_size: int,
    traces: Traces | None = None,
) -> Tensor:
    """Return the predicted class (B,) of images, on the CPU; -1 where there are no classes."""
    if layer is None:
        return torch.full((len(images),), -1)
    found = []
    table = model.layers(tuple(images.shape[2:]))
    with model.session():
        for part in images.split(batch_size if traces is None else WIDE):
            seen = part.to(model.device)
            made = None
            if traces is not None and len(seen) == WIDE:
                made = traces.find(model, seen, (layer,), table)
            with torch.no_grad():
                logits = made(seen)[0] if made else model.capture(seen, [layer], table)[layer]
            found.append(logits.argmax(1).cpu())
    return torch.cat(found)


def _logits_layer(model: Model, size: tuple[int, ...], wishes: Iterable[Objective]) -> str | None:
    """Return the layer with the classes: the one that is named, the model's, or None."""
    named = {w.layer or model.logits for w in wishes if isinstance(w, ClassLogit)}
    if len(named) > 1:
        raise FeatvizError(f"classes of one layer only, not of {' and '.join(sorted(named))}")
    if named:
        return named.pop()
    info = model.layers(size).find(model.logits)
    return model.logits if not info.positions and info.units > 1 else None


def _read(wish: Wish, count: int, name: str) -> list[Objective] | None:
    """Return one objective a picture: of a class by its index, of a text, of one for all."""
    if wish is None:
        return None
    members: list[Any] = list(wish) if isinstance(wish, (list, tuple)) else [wish] * count
    if isinstance(wish, Tensor):
        members = wish.tolist() if wish.ndim else [int(wish)] * count
    if len(members) != count:
        raise FeatvizError(f"{name} has {len(members)} objectives for {count} images")
    made = [ClassLogit(m) if isinstance(m, int) else as_objective(m) for m in members]
    for member in made:
        if member.relational:
            raise FeatvizError(f"{name} takes objectives of single pictures, not {member}")
    return made


def aim(
    model: Model,
    images: Tensor,
    away: Wish,
    to: Wish,
    loss: str,
    batch_size: int,
    traces: Traces | None = None,
) -> Aim:
    """Return what is raised for each of ``images``, from what the network predicts now.

    Raises
    ------
    FeatvizError
        For an unknown loss, a class that is not there, or no class to lead away from.
    """
    size = tuple(images.shape[2:])
    wishes = [_read(wish, len(images), name) for name, wish in (("away", away), ("to", to))]
    layer = _logits_layer(model, size, [w for side in wishes if side for w in side])
    predicted = predict(model, images, layer, batch_size, traces)
    return _aim(model, size, wishes[0], wishes[1], loss, predicted, layer)


def _aim(
    model: Model,
    size: tuple[int, ...],
    away: list[Objective] | None,
    to: list[Objective] | None,
    loss: str,
    predicted: Tensor,
    layer: str | None,
) -> Aim:
    if loss not in LOSSES:
        raise FeatvizError(
            f"no loss {loss!r}: it is {', '.join(LOSSES)}{did_you_mean(loss, LOSSES)}"
        )
    count = len(predicted)
    if away is None and to is None:
        if layer is None:
            raise FeatvizError("the network has no class logits: say what to attack, away= or to=")
        away = [ClassLogit(int(p)) for p in predicted]
    raised, until, numbers = [], [], []
    target = Target(model, size, 1)
    for i in range(count):
        pair = [None if side is None else side[i] for side in (away, to)]
        named: list[_Class] = [p.target if isinstance(p, ClassLogit) else None for p in pair]
        a, t = (model.class_index(n) if isinstance(n, str) else n for n in named)
        place = next((p.layer for p in pair if isinstance(p, ClassLogit)), "")
        goal: Objective | None = None
        if a is not None or t is not None:
            if a is not None and a == t:
                raise FeatvizError(f"class {a} is both away and to")
            led = int(predicted[i]) if loss == "dlr" and a is None else a
            goal = LOSSES[loss](led, t, place)
            until.append(_both(margin, None if t is not None else a, t, place))
        for sign, part in ((-1, pair[0]), (1, pair[1])):
            if part is not None and not isinstance(part, ClassLogit):
                goal = sign * part if goal is None else goal + sign * part
        assert goal is not None
        goal.bind(target)  # a class that is not there is named before the first step
        raised.append(goal)
        numbers.append([-1 if n is None else n for n in (a, t)])
    if until and len(until) < count:
        raise FeatvizError("either all pictures are attacked by a class, or none")
    columns = torch.tensor(numbers)
    return Aim(tuple(raised), tuple(until), columns[:, 0], columns[:, 1], predicted, layer)
