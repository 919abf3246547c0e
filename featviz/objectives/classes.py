"""Classes by index or name: logit, log-probability, probability; and match with a text."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from featviz.errors import UnitError
from featviz.objectives.base import Objective
from featviz.objectives.directions import dot_and_cosine
from featviz.objectives.scene import Scene, Score, Target
from featviz.objectives.unit import Unit, check_index, index, name_or_index, quoted, word
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True, repr=False)
class _Class(Unit):
    """A class of the layer ``layer``, or of the one that the model says holds its logits."""

    target: int | str = name_or_index()
    layer: str = word("")

    @staticmethod
    @abc.abstractmethod
    def convert(logits: Tensor) -> Tensor:
        """Map logits (B, C) to the values of all classes."""

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer or "output",)

    def needs(self, target: Target) -> tuple[str, ...]:
        return (self.layer or target.model.logits,)

    def _index(self, target: Target) -> int:
        info = target.layer(self.needs(target)[0])
        if info.positions:
            raise UnitError(
                f"layer {info.name!r} holds a map, not logits: name the layer that does"
            )
        number = self.target
        if isinstance(number, str):
            number = target.model.class_index(number)
        check_index(number, info.units, "class", info)
        return number

    def bind(self, target: Target) -> Score:
        number, (layer,) = self._index(target), self.needs(target)
        return lambda scene: self.convert(scene[layer])[:, number]

    @classmethod
    def stack(cls, members: Sequence[Any], target: Target) -> Score | None:
        layers = {m.needs(target)[0] for m in members}
        if len(layers) > 1:
            return None
        (layer,) = layers
        numbers = torch.tensor([m._index(target) for m in members], device=target.device)
        batch = torch.arange(len(members), device=target.device)
        return lambda scene: cls.convert(scene[layer])[batch, numbers]


class ClassLogit(_Class):
    """See :func:`class_logit`."""

    kind = "class"

    @staticmethod
    def convert(logits: Tensor) -> Tensor:
        return logits


class LogProbability(_Class):
    """See :func:`log_probability`."""

    kind = "log_probability"

    @staticmethod
    def convert(logits: Tensor) -> Tensor:
        return logits.log_softmax(1)


class Probability(_Class):
    """See :func:`probability`."""

    kind = "probability"

    @staticmethod
    def convert(logits: Tensor) -> Tensor:
        return logits.softmax(1)


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


def class_logit(target: int | str, *, layer: str = "") -> Objective:
    """Return the logit of a class, given by index or, for models with class names, by name.

    ``class_logit("Egyptian cat")`` is ``class:"Egyptian cat"``. ``layer`` says where the logits
    are if not where the model says. Logits and not probabilities, which rise as well when the
    other classes fall. [Simonyan2014]_
    """
    return ClassLogit(target if isinstance(target, str) else index(target), layer)


def log_probability(target: int | str, *, layer: str = "") -> Objective:
    """Return the log-probability of a class: its logit minus the log-sum-exp of all."""
    return LogProbability(target if isinstance(target, str) else index(target), layer)


def probability(target: int | str, *, layer: str = "") -> Objective:
    """Return the probability of a class; its gradient vanishes near 0 and 1, prefer the others."""
    return Probability(target if isinstance(target, str) else index(target), layer)


def text_match(text: str, *, layer: str = "output") -> Objective:
    """Return the cosine between the picture's embedding and a text's, as in CLIP.

    The model is the image encoder, and its ``text`` argument the text encoder:
    ``fv.Model(encode_image, text=encode_text)``, a function of a text that returns one vector
    (D,). [Radford2021]_
    """
    return TextMatch(text, layer)
