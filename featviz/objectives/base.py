"""What an objective is: a value per sample, a canonical text, and an algebra.

An objective scores what a network makes of a batch of images. Its value has shape (B,), one
number a sample, and higher is better: there are no sign flips inside. Objectives are immutable;
:meth:`Objective.bind` checks one against a network (does the layer exist, does it have this
channel?) and returns the function that computes it, so that nothing is looked up in the loop.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
import functools
import math
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch

from featviz.codec import format_number
from featviz.errors import FeatvizError
from featviz.objectives.scene import Scene, Score, Target
from featviz.types import Tensor

if TYPE_CHECKING:
    from featviz.networks.model import Model


class Objective(abc.ABC):
    """An immutable score of images by a network; see the module's text.

    ``str(o)`` is its canonical text and ``featviz.objective(str(o)) == o``. Numbers and other
    objectives combine with ``+``, ``-``, ``*`` and ``/`` (by a number).
    """

    #: The objectives that this one is made of; empty for a unit.
    parts: tuple[Objective, ...] = ()

    @property
    def relational(self) -> bool:
        """Whether a sample's value depends on the other samples of the batch."""
        return any(part.relational for part in self.parts)

    @abc.abstractmethod
    def bind(self, target: Target) -> Score:
        """Check the objective against a network and return the function that computes it."""

    @abc.abstractmethod
    def __str__(self) -> str: ...

    @classmethod
    def stack(cls, members: Sequence[Objective], target: Target) -> Score | None:
        """Compute ``members``, one a sample, in one go; None where the class cannot."""
        return None

    @property
    def kin(self) -> tuple[object, ...] | None:
        """What objectives have in common that :meth:`columns` computes in one go; None for none."""
        return None

    @classmethod
    def columns(cls, members: Sequence[Objective], target: Target) -> Score:
        """Compute every one of ``members``, of the same ``kin``, for every sample: (B, members)."""
        raise NotImplementedError

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the objective names; classes name ``output`` unless told otherwise."""
        return tuple(sorted({name for part in self.parts for name in part.layers}))

    def needs(self, target: Target) -> tuple[str, ...]:
        """Return the layers whose activations the value needs on a given network."""
        return tuple(sorted({name for part in self.parts for name in part.needs(target)}))

    def sliced(self, here: slice) -> Objective:
        """Return the objective of the samples ``here`` of a batch."""
        return self

    def __call__(self, model: Model, images: Tensor) -> Tensor:
        """Return the value per sample, (B,), differentiable in ``images`` (B, C, *spatial).

        Raises
        ------
        FeatvizError
            If the network lacks a layer or unit, or the images have another shape than it takes.
        """
        model.check_images(images)
        size = tuple(images.shape[2:])
        target = Target(model, size, len(images))
        score = self.bind(target)
        with model.session():
            return score(
                Scene(images, model.capture(images, self.needs(target), model.layers(size)))
            )

    def __repr__(self) -> str:
        return f"objective({str(self)!r})"

    def __add__(self, other: Objective | float) -> Objective:
        return _combine([*terms_of(self), *terms_of(other)])

    def __sub__(self, other: Objective | float) -> Objective:
        return self + _scaled(lift(other), -1.0)

    def __rsub__(self, other: float) -> Objective:
        return lift(other) + _scaled(self, -1.0)

    def __neg__(self) -> Objective:
        return _scaled(self, -1.0)

    def __mul__(self, other: Objective | float) -> Objective:
        return _product(self, lift(other))

    def __truediv__(self, other: float) -> Objective:
        if isinstance(other, Objective) and terms_of(other) and terms_of(other)[0][1] is not ONE:
            raise FeatvizError(f"an objective can be divided by a number, not by {other}")
        divisor = sum(c for c, _ in terms_of(other))
        if divisor == 0:
            raise FeatvizError(f"division of {self} by zero")
        return _scaled(self, 1 / divisor)

    __radd__ = __add__
    __rmul__ = __mul__


class _One(Objective):
    """The number 1, so that constants are terms like any other."""

    def bind(self, target: Target) -> Score:
        return lambda scene: scene.images.new_ones(len(scene.images))

    def __str__(self) -> str:
        return "1"

    def __reduce__(self) -> str:
        return "ONE"  # there is one only, also after unpickling


ONE = _One()
_Terms: TypeAlias = list[tuple[float, Objective]]


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Sum(Objective):
    """A linear combination: coefficients and the objectives that they weight.

    Sums are flat, like terms are merged, and equality ignores the order.
    """

    terms: tuple[tuple[float, Objective], ...]

    @property
    def parts(self) -> tuple[Objective, ...]:  # type: ignore[override]
        return tuple(o for _, o in self.terms)

    def bind(self, target: Target) -> Score:
        bound = [(c, o.bind(target)) for c, o in self.terms]

        def score(scene: Scene) -> Tensor:
            total = scene.images.new_zeros(len(scene.images))
            for coefficient, value in bound:
                total = total + coefficient * value(scene)
            return total

        return score

    def sliced(self, here: slice) -> Objective:
        return Sum(tuple((c, o.sliced(here)) for c, o in self.terms))

    def __str__(self) -> str:
        text = ""
        for coefficient, part in self.terms:
            size = abs(coefficient)
            inner = str(part)
            if isinstance(part, Product) and coefficient != 1 and isinstance(part.parts[0], Sum):
                inner = f"({inner})"  # or the number would read as the first sum's
            word = inner if size == 1 else f"{format_number(size)}*{inner}"
            if part is ONE:
                word = format_number(size)
            sign = "-" if math.copysign(1, coefficient) < 0 else "+"
            text += f" {sign} {word}" if text else word if sign == "+" else f"-{word}"
        return text or "0"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sum):
            return NotImplemented
        return {o: c for c, o in self.terms} == {o: c for c, o in other.terms}

    def __hash__(self) -> int:
        return hash(("sum", frozenset(self.terms)))


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Product(Objective):
    """The product of objectives, sample by sample. Equality ignores the order."""

    parts: tuple[Objective, ...]

    def bind(self, target: Target) -> Score:
        bound = [o.bind(target) for o in self.parts]
        return lambda scene: functools.reduce(torch.mul, (value(scene) for value in bound))

    def sliced(self, here: slice) -> Objective:
        return Product(tuple(o.sliced(here) for o in self.parts))

    def __str__(self) -> str:
        return "*".join(f"({o})" if isinstance(o, Sum) else str(o) for o in self.parts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Product):
            return NotImplemented
        return collections.Counter(self.parts) == collections.Counter(other.parts)

    def __hash__(self) -> int:
        return hash(("product", frozenset(self.parts)))


def lift(value: Objective | float) -> Objective:
    """Return an objective for a number, too."""
    if isinstance(value, Objective):
        return value
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise FeatvizError(f"an objective cannot be combined with {value}")
        return Sum(((float(value), ONE),) if value else ())
    raise FeatvizError(
        f"an objective combines with numbers and objectives, not {type(value).__name__}"
    )


def terms_of(value: Objective | float) -> _Terms:
    """Return the coefficients and objectives of a linear combination; of itself for others."""
    objective = lift(value)
    return list(objective.terms) if isinstance(objective, Sum) else [(1.0, objective)]


def _combine(terms: _Terms) -> Objective:
    merged: dict[Objective, float] = {}
    for coefficient, part in terms:
        merged[part] = merged[part] + coefficient if part in merged else coefficient
    if not all(map(math.isfinite, merged.values())):
        raise FeatvizError("a factor of the objective is too large")
    kept = [item for item in merged.items() if item[1]]
    ordered = sorted(kept, key=lambda item: item[0] is ONE)  # numbers come last
    if len(ordered) == 1 and ordered[0][1] == 1 and ordered[0][0] is not ONE:
        return ordered[0][0]
    return Sum(tuple((c, o) for o, c in ordered))


def _scaled(objective: Objective, factor: float) -> Objective:
    return _combine([(factor * c, o) for c, o in terms_of(objective)])


def _product(a: Objective, b: Objective) -> Objective:
    factor = 1.0
    factors: list[Objective] = []
    for side in (a, b):
        terms = terms_of(side)
        if not terms:
            return Sum(())
        if len(terms) == 1:  # a number or a scaled objective: its coefficient goes in front
            factor *= terms[0][0]
            side = terms[0][1]
        if side is not ONE:
            factors += side.parts if isinstance(side, Product) else [side]
    if not factors:
        return lift(factor)
    factors.sort(key=lambda part: isinstance(part, Sum))  # what needs brackets comes last
    return _scaled(factors[0] if len(factors) == 1 else Product(tuple(factors)), factor)
