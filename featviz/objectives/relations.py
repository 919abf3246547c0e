"""Objectives that tie the samples of a batch together: diversity, alignment, interpolation.

They are *relational*: a sample's value depends on the others, so that such a batch is always
optimized as a whole. Each says so.
"""

from __future__ import annotations

import dataclasses

import torch

from featviz.errors import UnitError
from featviz.objectives import reference
from featviz.objectives.base import Objective
from featviz.objectives.matching import gram
from featviz.objectives.reduction import EPSILON
from featviz.objectives.reference import Picture
from featviz.objectives.scene import Scene, Score, Target
from featviz.objectives.unit import Unit, real, word
from featviz.types import Tensor


def _several(unit: Objective, target: Target) -> None:
    if target.batch < 2:
        raise UnitError(f"{unit} compares images: it needs at least two, such as seed=[0, 1]")


def _others(batch: int, device: torch.device) -> Tensor:
    return 1 - torch.eye(batch, device=device)


@dataclasses.dataclass(frozen=True, repr=False)
class Diversity(Unit):
    """See :func:`diversity`."""

    kind = "diversity"
    relational = True
    layer: str = word()
    measure: str = word("gram")

    def bind(self, target: Target) -> Score:
        _several(self, target)
        axis = target.layer(self.layer).axis
        if self.measure not in ("gram", "activation"):
            raise UnitError(f"diversity by {self.measure!r}: it is gram or activation")
        others = _others(target.batch, target.device) / (target.batch - 1)

        def score(scene: Scene) -> Tensor:
            values = scene[self.layer]
            rows = (gram(values, axis) if self.measure == "gram" else values).flatten(1)
            rows = rows / (rows.square().sum(1, keepdim=True) + EPSILON).sqrt()
            return -((rows @ rows.T) * others).sum(1)

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class Alignment(Unit):
    """See :func:`alignment`."""

    kind = "alignment"
    relational = True
    layer: str = word()
    decay: float = real(2.0)

    def bind(self, target: Target) -> Score:
        _several(self, target)
        target.layer(self.layer)
        if not self.decay > 0:
            raise UnitError(f"alignment needs a positive decay, not {self.decay}")
        place = torch.arange(target.batch, device=target.device)
        weight = self.decay ** -(place[:, None] - place).abs().float()
        weight = weight * _others(target.batch, target.device)

        def score(scene: Scene) -> Tensor:
            rows = scene[self.layer].flatten(1)
            squares = rows.square().sum(1)
            distance = (squares[:, None] + squares - 2 * rows @ rows.T) / rows.shape[1]
            return -(distance.clamp_min(0) * weight).sum(1)

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class ActivationDifference(Unit):
    """See :func:`activation_difference`."""

    kind = "activation_difference"
    layer: str = word()
    to: str = word("")

    @property
    def relational(self) -> bool:
        return not self.to

    def bind(self, target: Target) -> Score:
        target.layer(self.layer)
        if not self.to:
            _several(self, target)
        fixed = reference.activation(self.to, self.layer, target) if self.to else None

        def score(scene: Scene) -> Tensor:
            values = scene[self.layer]
            other = values[:1] if fixed is None else fixed
            return (values - other).abs().flatten(1).mean(1)

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class Interpolate(Objective):
    """See :func:`interpolate`."""

    parts: tuple[Objective, ...]
    relational = True

    def bind(self, target: Target) -> Score:
        _several(self, target)
        first, last = (part.bind(target) for part in self.parts)
        share = torch.linspace(0, 1, target.batch, device=target.device)
        return lambda scene: (1 - share) * first(scene) + share * last(scene)

    def __str__(self) -> str:
        return f"interpolate({', '.join(map(str, self.parts))})"


def diversity(layer: str, *, measure: str = "gram") -> Objective:
    """Return how different the images of a batch are: minus the mean cosine to the others'.

    Cosines of the Gram matrices (``gram``, lucid's: what textures there are, wherever they
    lie) or of the whole activations (``activation``, pairwise, position by position).
    Relational. [Olah2017]_

    ``channel("_blocks.10", 5) + 10 * diversity("_blocks.4")`` with ``seed=[0, 1, 2, 3]``.
    """
    return Diversity(str(layer), measure)


def alignment(layer: str, *, decay: float = 2) -> Objective:
    """Return how near each image's activation is to its neighbours' in the batch.

    Minus the mean squared distances, weighted by decay^-|i - j|: neighbours count most.
    Relational. [Mordvintsev2018]_
    """
    return Alignment(str(layer), float(decay))


def activation_difference(layer: str, *, to: Picture | None = None) -> Objective:
    """Return the mean absolute difference of activations from an image's (``to``).

    Without ``to``, from the first image of the batch, which makes it relational.
    """
    return ActivationDifference(str(layer), "" if to is None else reference.keep(to, "to"))


def interpolate(first: Objective, last: Objective) -> Objective:
    """Return ``(1 - t) first + t last`` with t from 0 to 1 along the batch. Relational.

    Add :func:`alignment` to keep what is common where it is. [Mordvintsev2018]_
    """
    return Interpolate((first, last))
