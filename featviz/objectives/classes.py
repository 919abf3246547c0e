"""Classes by index or name: logit, probabilities, the losses of attacks; match with a text."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from featviz.errors import UnitError
from featviz.objectives.base import Objective
from featviz.objectives.directions import dot_and_cosine
from featviz.objectives.scene import Scene, Score, Target
from featviz.objectives.unit import Unit, check_index, index, name_or_index, quoted, word
from featviz.types import Tensor

#: Which samples of a batch are read, all of them in the end, and which class of each.
Rows: TypeAlias = slice | Tensor
Numbers: TypeAlias = int | Tensor

#: Keeps ratios of logits finite where these are all equal; AutoAttack's own.
EPSILON = 1e-12


@dataclasses.dataclass(frozen=True, repr=False)
class _Class(Unit):
    """A class of the layer ``layer``, or of the one that the model says holds its logits."""

    target: int | str = name_or_index()
    layer: str = word("")

    @staticmethod
    @abc.abstractmethod
    def value(logits: Tensor, rows: Rows, number: Numbers) -> Tensor:
        """Return the values (B,) of class ``number`` in the ``rows`` of logits (B, C)."""

    @property
    def least(self) -> int:
        """How many classes there have to be."""
        return 1

    @property
    def named(self) -> tuple[int | str, ...]:
        """The classes that the text names, each an argument of :meth:`value`."""
        return (self.target,)

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer or "output",)

    def needs(self, target: Target) -> tuple[str, ...]:
        return (self.layer or target.model.logits,)

    def _numbers(self, target: Target) -> tuple[int, ...]:
        """Return the indices of the classes that the text names."""
        info = target.layer(self.needs(target)[0])
        if info.positions:
            raise UnitError(
                f"layer {info.name!r} holds a map, not logits: name the layer that does"
            )
        if info.units < self.least:
            raise UnitError(
                f"{self} takes at least {self.least} classes: layer {info.name!r} has {info.units}"
            )
        numbers = [target.model.class_index(n) if isinstance(n, str) else n for n in self.named]
        for number in numbers:
            check_index(number, info.units, "class", info)
        return tuple(numbers)

    def bind(self, target: Target) -> Score:
        numbers, (layer,) = self._numbers(target), self.needs(target)
        return lambda scene: self.value(scene[layer], slice(None), *numbers)

    @classmethod
    def stack(cls, members: Sequence[Any], target: Target) -> Score | None:
        layers = {m.needs(target)[0] for m in members}
        picked = [m._numbers(target) for m in members]
        if len(layers) > 1 or len(set(map(len, picked))) > 1:
            return None
        (layer,) = layers
        columns = [torch.tensor(c, device=target.device) for c in zip(*picked, strict=True)]
        batch = torch.arange(len(members), device=target.device)
        return lambda scene: cls.value(scene[layer], batch, *columns)


class _Column(_Class):
    """A class whose value does not take the others' one by one: all come from one table."""

    @property
    def kin(self) -> tuple[object, ...]:
        return (type(self), self.layer)

    @classmethod
    def columns(cls, members: Sequence[Any], target: Target) -> Score:
        (layer,) = members[0].needs(target)
        numbers = [number for m in members for number in m._numbers(target)]
        picked = torch.tensor(numbers, device=target.device)
        return lambda scene: cls.value(scene[layer], slice(None), picked)


class ClassLogit(_Column):
    """See :func:`class_logit`."""

    kind = "class"

    @staticmethod
    def value(logits: Tensor, rows: Rows, number: Numbers) -> Tensor:
        return logits[rows, number]


class LogProbability(_Column):
    """See :func:`log_probability`."""

    kind = "log_probability"

    @staticmethod
    def value(logits: Tensor, rows: Rows, number: Numbers) -> Tensor:
        return logits.log_softmax(1)[rows, number]


class Probability(_Column):
    """See :func:`probability`."""

    kind = "probability"

    @staticmethod
    def value(logits: Tensor, rows: Rows, number: Numbers) -> Tensor:
        return logits.softmax(1)[rows, number]


class Margin(_Class):
    """See :func:`margin`."""

    kind = "margin"

    @property
    def least(self) -> int:
        return 2

    @staticmethod
    def value(logits: Tensor, rows: Rows, number: Numbers) -> Tensor:
        top = logits.topk(2)
        (first, second), predicted = top.values.unbind(1), top.indices[:, 0]
        return logits[rows, number] - torch.where(predicted == number, second, first)


@dataclasses.dataclass(frozen=True, repr=False)
class Dlr(_Class):
    """See :func:`dlr`."""

    kind = "dlr"
    towards: int | str | None = name_or_index(None)

    @property
    def least(self) -> int:
        return 3 if self.towards is None else 4

    @property
    def named(self) -> tuple[int | str, ...]:
        return (self.target,) if self.towards is None else (self.target, self.towards)

    def _numbers(self, target: Target) -> tuple[int, ...]:
        numbers = super()._numbers(target)
        if len(set(numbers)) < len(numbers):
            raise UnitError(f"{self} leads away from the class that it leads towards")
        return numbers

    @staticmethod
    def value(
        logits: Tensor, rows: Rows, number: Numbers, towards: Numbers | None = None
    ) -> Tensor:
        if towards is None:
            first, _, third = logits.topk(3).values.unbind(1)
            return -Margin.value(logits, rows, number) / (first - third + EPSILON)
        first, _, third, fourth = logits.topk(4).values.unbind(1)
        gained = logits[rows, towards] - logits[rows, number]
        return gained / (first - (third + fourth) / 2 + EPSILON)


@dataclasses.dataclass(frozen=True, repr=False)
class TextMatch(Unit):
    """See :func:`text_match`."""

    kind = "text_match"
    text: str = quoted()
    layer: str = word("output")

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        if target.model.text is None:
            raise UnitError(
                "the model has no text encoder: give fv.Model(…, text=function of a text)"
            )
        embedding = torch.as_tensor(target.model.text(self.text)).detach().float().flatten()
        if info.positions or len(embedding) != info.units:
            shape = "x".join(map(str, info.shape))
            raise UnitError(
                f"the text has {len(embedding)} features, but layer {info.name!r} {shape}"
            )
        embedding = embedding.to(target.device)

        def score(scene: Scene) -> Tensor:
            return dot_and_cosine(scene[self.layer], embedding)[1]

        return score


def _given(target: int | str) -> int | str:
    return target if isinstance(target, str) else index(target)


def class_logit(target: int | str, *, layer: str = "") -> Objective:
    """Return the logit of a class, given by index or, for models with class names, by name.

    ``class_logit("Egyptian cat")`` is ``class:"Egyptian cat"``. ``layer`` says where the logits
    are if not where the model says. Logits and not probabilities, which rise as well when the
    other classes fall. [Simonyan2014]_
    """
    return ClassLogit(_given(target), layer)


def log_probability(target: int | str, *, layer: str = "") -> Objective:
    """Return the log-probability of a class: its logit minus the log-sum-exp of all.

    Natural, (B,), at most 0. ``-log_probability(target)`` is the cross-entropy with the class:
    raise it to get away from the class, as most attacks do, and this to get there.
    """
    return LogProbability(_given(target), layer)


def probability(target: int | str, *, layer: str = "") -> Objective:
    """Return the probability of a class; its gradient vanishes near 0 and 1, prefer the others."""
    return Probability(_given(target), layer)


def margin(target: int | str, *, layer: str = "") -> Objective:
    """Return how far the logit of a class is above the highest of the others.

    ``margin("Egyptian cat")`` is ``margin:"Egyptian cat"``: z_c - max over j != c of z_j, (B,), in
    units of the logits, positive where the class is predicted and zero only in a tie. Raise it to
    get to the class and ``-margin(…)`` to get away. It is the negative of f_6 of [Carlini2017]_
    without the clamp at -confidence: an image that is classified as wanted is pushed further.

    Raises
    ------
    UnitError
        When it is used, if the layer has fewer than two classes or not this one.
    """
    return Margin(_given(target), layer)


def dlr(target: int | str, *, towards: int | str | None = None, layer: str = "") -> Objective:
    """Return the difference-of-logits ratio, which grows the further a class is from predicted.

    ``dlr(285)`` is ``dlr:285``: -(z_y - max over j != y of z_j) / (z_1 - z_3), (B,), without
    unit, with the logits in descending order as z_1, z_2, …; the loss of AutoAttack. It stays the
    same if all logits are shifted or multiplied by a positive number. In [-1, 0] where class y is
    predicted, in [0, 1] where it is second, 1 and without a gradient where it is third, above 1
    where it is lower.

    ``dlr(285, towards=281)`` is ``dlr:285:towards=281``, the targeted ratio:
    -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2), positive where t is above y. Raising either leads
    *away* from ``target``, unlike the other objectives of classes. Equations 6 and 7 of
    [Croce2020]_; 1e-12 is added to the denominators as in the authors' code, which matters only
    where the highest logits are all equal.

    Raises
    ------
    UnitError
        When it is used, if the layer has fewer than three classes (with ``towards``, four) or not
        these, or if both are the same.
    """
    return Dlr(_given(target), layer, None if towards is None else _given(towards))


def text_match(text: str, *, layer: str = "output") -> Objective:
    """Return the cosine between the image's embedding and a text's, as in CLIP.

    The model is the image encoder, and its ``text`` argument the text encoder:
    ``fv.Model(encode_image, text=encode_text)``, a function of a text that returns one vector
    (D,). [Radford2021]_
    """
    return TextMatch(text, layer)
