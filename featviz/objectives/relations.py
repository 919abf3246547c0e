"""Objectives that couple the samples of a batch: diversity, alignment, interpolation.

They are *relational*: a sample's value depends on the other samples, so the batch is always
optimized as a whole. Each docstring says so.
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


def _require_batch(unit: Objective, target: Target) -> None:
    if target.batch < 2:
        raise UnitError(f"{unit} compares images: it needs at least two, such as seed=[0, 1]")


def _off_diagonal(batch: int, device: torch.device) -> Tensor:
    return 1 - torch.eye(batch, device=device)


@dataclasses.dataclass(frozen=True, repr=False)
class Diversity(Unit):
    """See :func:`diversity`."""

    kind = "diversity"
    relational = True
    layer: str = word()
    measure: str = word("gram")

    def bind(self, target: Target) -> Score:
        _require_batch(self, target)
        axis = target.layer(self.layer).axis
        if self.measure not in ("gram", "activation"):
            raise UnitError(f"no diversity measure {self.measure!r}; known: gram, activation")
        weights = _off_diagonal(target.batch, target.device) / (target.batch - 1)

        def score(scene: Scene) -> Tensor:
            values = scene[self.layer]
            rows = (gram(values, axis) if self.measure == "gram" else values).flatten(1)
            rows = rows / (rows.square().sum(1, keepdim=True) + EPSILON).sqrt()
            return -((rows @ rows.T) * weights).sum(1)

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class Alignment(Unit):
    """See :func:`alignment`."""

    kind = "alignment"
    relational = True
    layer: str = word()
    decay: float = real(2.0)

    def bind(self, target: Target) -> Score:
        _require_batch(self, target)
        target.layer(self.layer)
        if not self.decay > 0:
            raise UnitError(f"alignment needs a positive decay, not {self.decay}")
        index = torch.arange(target.batch, device=target.device)
        weight = self.decay ** -(index[:, None] - index).abs().float()
        weight = weight * _off_diagonal(target.batch, target.device)

        def score(scene: Scene) -> Tensor:
            rows = scene[self.layer].flatten(1)
            # Distances from the mean: squares of large, nearly equal activations lose digits.
            rows = rows - rows.mean(0).detach()
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
            _require_batch(self, target)
        reference_activation = (
            reference.activation(self.to, self.layer, target) if self.to else None
        )

        def score(scene: Scene) -> Tensor:
            values = scene[self.layer]
            baseline = values[:1] if reference_activation is None else reference_activation
            return (values - baseline).abs().flatten(1).mean(1)

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class Interpolate(Objective):
    """See :func:`interpolate`."""

    parts: tuple[Objective, ...]
    relational = True

    def bind(self, target: Target) -> Score:
        _require_batch(self, target)
        first, last = (part.bind(target) for part in self.parts)
        t = torch.linspace(0, 1, target.batch, device=target.device)
        return lambda scene: (1 - t) * first(scene) + t * last(scene)

    def __str__(self) -> str:
        return f"interpolate({', '.join(map(str, self.parts))})"


def diversity(layer: str, *, measure: str = "gram") -> Objective:
    """Return how much the images of a batch differ: minus the mean cosine similarity to the others.

    The cosine is that of Gram matrices (``gram``, as in lucid: which textures occur, regardless of
    where) or of whole activations (``activation``, pairwise, position by position). Relational.
    [Olah2017]_

    ``channel("_blocks.10", 5) + 10 * diversity("_blocks.4")`` with ``seed=[0, 1, 2, 3]``.
    """
    return Diversity(str(layer), measure)


def alignment(layer: str, *, decay: float = 2) -> Objective:
    """Return how close each image's activation is to those of its neighbours in the batch.

    Minus the mean squared distances, weighted by decay^-|i - j|: direct neighbours count most.
    Relational. [Mordvintsev2018]_
    """
    return Alignment(str(layer), float(decay))


def activation_difference(layer: str, *, to: Picture | None = None) -> Objective:
    """Return the mean absolute difference of activations from those of an image, ``to``.

    Without ``to``, from those of the first image of the batch, which makes it relational.
    """
    return ActivationDifference(str(layer), "" if to is None else reference.register(to, "to"))


def interpolate(first: Objective, last: Objective) -> Objective:
    """Return ``(1 - t) first + t last`` with t from 0 to 1 along the batch. Relational.

    Add :func:`alignment` to keep common features in place. [Mordvintsev2018]_
    """
    return Interpolate((first, last))
