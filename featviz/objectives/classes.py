"""Classes by index or name: logits, probabilities, the losses of attacks."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from featviz.errors import UnitError
from featviz.objectives.base import Objective
from featviz.objectives.scene import Score, Target
from featviz.objectives.unit import Unit, check_index, index, name_or_index, word
from featviz.types import Tensor

#: Indices of the samples, which always cover the batch, and of the class of each.
Rows: TypeAlias = slice | Tensor
ClassIndex: TypeAlias = int | Tensor

#: Keeps ratios finite if all logits are equal; the value of AutoAttack.
EPSILON = 1e-12


@dataclasses.dataclass(frozen=True, repr=False)
class _Class(Unit):
    """An objective of a class, read from ``layer`` or the layer that the model names for logits."""

    target: int | str = name_or_index()
    layer: str = word("")

    scalable = True

    @staticmethod
    @abc.abstractmethod
    def value(logits: Tensor, rows: Rows, class_index: ClassIndex) -> Tensor:
        """Return the values (B,) of class ``class_index`` in the ``rows`` of logits (B, C)."""

    @property
    def min_classes(self) -> int:
        """The smallest number of classes for which the value is defined."""
        return 1

    @property
    def targets(self) -> tuple[int | str, ...]:
        """The classes named in the text, each an argument of :meth:`value`."""
        return (self.target,)

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer or "output",)

    def needs(self, target: Target) -> tuple[str, ...]:
        return (self.layer or target.model.logits,)

    def _class_indices(self, target: Target) -> tuple[int, ...]:
        """Return the indices of the classes named in the text."""
        info = target.layer(self.needs(target)[0])
        if info.positions:
            raise UnitError(
                f"layer {info.name!r} holds a map, not logits: name the layer of the logits"
            )
        if info.units < self.min_classes:
            raise UnitError(
                f"{self} needs at least {self.min_classes} classes: "
                f"layer {info.name!r} has {info.units}"
            )
        indices = [target.model.class_index(n) if isinstance(n, str) else n for n in self.targets]
        for class_index in indices:
            check_index(class_index, info.units, "class", info)
        return tuple(indices)

    def bind(self, target: Target) -> Score:
        indices, (layer,) = self._class_indices(target), self.needs(target)
        return lambda scene: self.value(scene[layer], slice(None), *indices)

    @classmethod
    def stack(cls, members: Sequence[Any], target: Target) -> Score | None:
        layers = {m.needs(target)[0] for m in members}
        indices = [m._class_indices(target) for m in members]
        if len(layers) > 1 or len(set(map(len, indices))) > 1:
            return None
        (layer,) = layers
        columns = [torch.tensor(c, device=target.device) for c in zip(*indices, strict=True)]
        batch = torch.arange(len(members), device=target.device)
        return lambda scene: cls.value(scene[layer], batch, *columns)


class _Column(_Class):
    """A class whose value is a column of a table (B, C) that is computed once for all classes."""

    @property
    def kin(self) -> tuple[object, ...]:
        return (type(self), self.layer)

    @classmethod
    def columns(cls, members: Sequence[Any], target: Target) -> Score:
        (layer,) = members[0].needs(target)
        indices = [class_index for m in members for class_index in m._class_indices(target)]
        columns = torch.tensor(indices, device=target.device)
        return lambda scene: cls.value(scene[layer], slice(None), columns)


class ClassLogit(_Column):
    """See :func:`class_logit`."""

    kind = "class"

    @staticmethod
    def value(logits: Tensor, rows: Rows, class_index: ClassIndex) -> Tensor:
        return logits[rows, class_index]


class LogProbability(_Column):
    """See :func:`log_probability`."""

    kind = "log_probability"

    @staticmethod
    def value(logits: Tensor, rows: Rows, class_index: ClassIndex) -> Tensor:
        return logits.log_softmax(1)[rows, class_index]


class Probability(_Column):
    """See :func:`probability`."""

    kind = "probability"

    @staticmethod
    def value(logits: Tensor, rows: Rows, class_index: ClassIndex) -> Tensor:
        return logits.softmax(1)[rows, class_index]


class Margin(_Class):
    """See :func:`margin`."""

    kind = "margin"

    @property
    def min_classes(self) -> int:
        return 2

    @staticmethod
    def value(logits: Tensor, rows: Rows, class_index: ClassIndex) -> Tensor:
        top = logits.topk(2)
        (first, second), predicted = top.values.unbind(1), top.indices[:, 0]
        return logits[rows, class_index] - torch.where(predicted == class_index, second, first)


@dataclasses.dataclass(frozen=True, repr=False)
class Dlr(_Class):
    """See :func:`dlr`."""

    kind = "dlr"
    towards: int | str | None = name_or_index(None)

    @property
    def min_classes(self) -> int:
        return 3 if self.towards is None else 4

    @property
    def targets(self) -> tuple[int | str, ...]:
        return (self.target,) if self.towards is None else (self.target, self.towards)

    def _class_indices(self, target: Target) -> tuple[int, ...]:
        indices = super()._class_indices(target)
        if len(set(indices)) < len(indices):
            raise UnitError(f"{self} leads away from and towards the same class")
        return indices

    @staticmethod
    def value(
        logits: Tensor, rows: Rows, class_index: ClassIndex, towards: ClassIndex | None = None
    ) -> Tensor:
        if towards is None:
            first, _, third = logits.topk(3).values.unbind(1)
            return -Margin.value(logits, rows, class_index) / (first - third + EPSILON)
        first, _, third, fourth = logits.topk(4).values.unbind(1)
        difference = logits[rows, towards] - logits[rows, class_index]
        return difference / (first - (third + fourth) / 2 + EPSILON)


def _as_target(target: int | str) -> int | str:
    return target if isinstance(target, str) else index(target)


def class_logit(target: int | str, *, layer: str = "") -> Objective:
    """Return the logit of a class, given by index or, for models with class names, by name.

    ``class_logit("Egyptian cat")`` is ``class:"Egyptian cat"``. ``layer`` names the layer of the
    logits if it is not the one that the model declares. Logits are used rather than probabilities,
    which also rise when the logits of the other classes fall. [Simonyan2014]_
    """
    return ClassLogit(_as_target(target), layer)


def log_probability(target: int | str, *, layer: str = "") -> Objective:
    """Return the log-probability of a class: its logit minus the log-sum-exp of all logits.

    A natural logarithm, (B,), at most 0. ``-log_probability(target)`` is the cross-entropy with
    respect to the class: maximize it to move away from the class, as most attacks do, and this to
    move towards it.
    """
    return LogProbability(_as_target(target), layer)


def probability(target: int | str, *, layer: str = "") -> Objective:
    """Return the probability of a class.

    Its gradient vanishes near 0 and 1: prefer :func:`class_logit` or :func:`log_probability`.
    """
    return Probability(_as_target(target), layer)


def margin(target: int | str, *, layer: str = "") -> Objective:
    """Return by how much the logit of a class exceeds the highest of the others.

    ``margin("Egyptian cat")`` is ``margin:"Egyptian cat"``: z_c - max over j != c of z_j, (B,), in
    units of the logits, positive where the class is predicted and zero only in a tie. Maximize it
    to reach the class and ``-margin(…)`` to leave it. It is the negative of f_6 of [Carlini2017]_
    without the clamp at -confidence: an image that already has the intended class is pushed
    further.

    Raises
    ------
    UnitError
        When used, if the layer has fewer than two classes or lacks this one.
    """
    return Margin(_as_target(target), layer)


def dlr(target: int | str, *, towards: int | str | None = None, layer: str = "") -> Objective:
    """Return the difference-of-logits ratio, which grows as a class falls in the ranking.

    ``dlr(285)`` is ``dlr:285``: -(z_y - max over j != y of z_j) / (z_1 - z_3), (B,), dimensionless,
    where z_1, z_2, … are the logits in descending order; the loss of AutoAttack. It does not change
    if all logits are shifted or multiplied by a positive number. It is in [-1, 0] where class y is
    predicted, in [0, 1] where it is second, 1 with zero gradient where it is third, and above 1
    where it is lower.

    ``dlr(285, towards=281)`` is ``dlr:285:towards=281``, the targeted ratio:
    -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2), positive where t is above y. Maximizing either leads
    *away* from ``target``, unlike the other class objectives. Equations 6 and 7 of [Croce2020]_;
    1e-12 is added to the denominators as in the authors' code, which matters only where the highest
    logits are all equal.

    Raises
    ------
    UnitError
        When used, if the layer has fewer than three classes (with ``towards``, four) or lacks one
        of these, or if both are the same.
    """
    return Dlr(_as_target(target), layer, None if towards is None else _as_target(towards))
