"""Objectives: a value per sample, a canonical text, and an algebra.

An objective scores how a network responds to a batch of images. Its value has shape (B,), one
number per sample, and higher is better: there are no sign flips inside. Objectives are immutable;
:meth:`Objective.bind` checks one against a network (does the layer exist, does it have this
channel?) and returns the function that computes it, so that the loop does no lookups.
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

from featviz import process_state
from featviz.codec import format_number
from featviz.errors import FeatvizError
from featviz.objectives.scene import Scene, Score, Target
from featviz.types import Tensor

if TYPE_CHECKING:
    from featviz.networks.model import Model


class Objective(abc.ABC):
    """An immutable score of images by a network; see the module docstring.

    ``str(o)`` is its canonical text and ``featviz.objective(str(o)) == o``. Objectives combine with
    numbers and other objectives by ``+``, ``-``, ``*``, ``/`` (by a
    number) and ``**`` (a positive int).
    """

    #: The objectives that this one combines; empty for an elementary one.
    parts: tuple[Objective, ...] = ()

    @property
    def relational(self) -> bool:
        """Whether a sample's value depends on the other samples of the batch."""
        return any(part.relational for part in self.parts)

    @property
    def scalable(self) -> bool:
        """Whether the value means the same on an image of half the size: it names no positions."""
        return bool(self.parts) and all(part.scalable for part in self.parts)

    @abc.abstractmethod
    def bind(self, target: Target) -> Score:
        """Check the objective against a network and return the function that computes it."""

    @abc.abstractmethod
    def __str__(self) -> str: ...

    @classmethod
    def stack(cls, members: Sequence[Objective], target: Target) -> Score | None:
        """Return a score of sample i by ``members[i]`` in one operation; None if not supported."""
        return None

    @property
    def kin(self) -> tuple[object, ...] | None:
        """Key of the objectives that :meth:`columns` computes together with this one, or None."""
        return None

    @classmethod
    def columns(cls, members: Sequence[Objective], target: Target) -> Score:
        """Return a score of every sample by each of ``members``, all of one kin: (B, members)."""
        raise NotImplementedError

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the objective names; class objectives name ``output`` by default."""
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
            If the network lacks a layer or unit, or does not accept images of this shape.
        """
        model.check_images(images)
        size = tuple(images.shape[2:])
        target = Target(model, size, len(images))
        with process_state.defaults():
            score = self.bind(target)
        with model.session(), process_state.defaults():
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
            raise FeatvizError(f"an objective can only be divided by a number, not by {other}")
        divisor = sum(c for c, _ in terms_of(other))
        if divisor == 0:
            raise FeatvizError(f"division of {self} by zero")
        return _scaled(self, 1 / divisor)

    def __rtruediv__(self, other: float) -> Objective:
        raise FeatvizError(f"an objective cannot be a divisor: maximize -({self}) to lower it")

    def __pow__(self, exponent: int) -> Objective:
        if not isinstance(exponent, int) or isinstance(exponent, bool) or exponent < 1:
            raise FeatvizError(f"the power of an objective must be a positive int, not {exponent}")
        return functools.reduce(_product, [self] * exponent)

    __radd__ = __add__
    __rmul__ = __mul__


class _One(Objective):
    """The number 1, so that constants are terms like any other."""

    scalable = True

    def bind(self, target: Target) -> Score:
        return lambda scene: scene.images.new_ones(len(scene.images))

    def __str__(self) -> str:
        return "1"

    def __reduce__(self) -> str:
        return "ONE"  # a singleton, also after unpickling


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
            magnitude = abs(coefficient)
            part_text = str(part)
            if isinstance(part, Product) and coefficient != 1 and isinstance(part.parts[0], Sum):
                part_text = f"({part_text})"  # or the number would scale the first sum only
            term = part_text if magnitude == 1 else f"{format_number(magnitude)}*{part_text}"
            if part is ONE:
                term = format_number(magnitude)
            sign = "-" if math.copysign(1, coefficient) < 0 else "+"
            text += f" {sign} {term}" if text else term if sign == "+" else f"-{term}"
        return text or "0"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sum):
            return NotImplemented
        return {o: c for c, o in self.terms} == {o: c for c, o in other.terms}

    def __hash__(self) -> int:
        return hash(("sum", frozenset(self.terms)))


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Product(Objective):
    """The product of objectives, per sample. Equality ignores the order."""

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
    """Return ``value`` as an objective; a number becomes a constant."""
    if isinstance(value, Objective):
        return value
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise FeatvizError(f"an objective cannot be combined with {value}")
        return Sum(((float(value), ONE),) if value else ())
    raise FeatvizError(
        f"an objective can be combined with numbers and objectives, not {type(value).__name__}"
        f"{': fv.objective(text) reads a text' if isinstance(value, str) else ''}"
    )


def terms_of(value: Objective | float) -> _Terms:
    """Return the coefficients and objectives of a linear combination; others are a single term."""
    objective = lift(value)
    return list(objective.terms) if isinstance(objective, Sum) else [(1.0, objective)]


def _combine(terms: _Terms) -> Objective:
    merged: dict[Objective, float] = {}
    for coefficient, part in terms:
        merged[part] = merged[part] + coefficient if part in merged else coefficient
    if not all(map(math.isfinite, merged.values())):
        raise FeatvizError("a coefficient of the objective is too large")
    nonzero = [item for item in merged.items() if item[1]]
    ordered = sorted(nonzero, key=lambda item: item[0] is ONE)  # constants come last
    if len(ordered) == 1 and ordered[0][1] == 1 and ordered[0][0] is not ONE:
        return ordered[0][0]
    return Sum(tuple((c, o) for o, c in ordered))


def _scaled(objective: Objective, factor: float) -> Objective:
    return _combine([(factor * c, o) for c, o in terms_of(objective)])


def _product(a: Objective, b: Objective) -> Objective:
    factor = 1.0
    factors: list[Objective] = []
    for operand in (a, b):
        terms = terms_of(operand)
        if not terms:
            return Sum(())
        if len(terms) == 1:  # a number or a scaled objective: factor out the coefficient
            factor *= terms[0][0]
            operand = terms[0][1]
        if operand is not ONE:
            factors += operand.parts if isinstance(operand, Product) else [operand]
    if not factors:
        return lift(factor)
    factors.sort(key=lambda part: isinstance(part, Sum))  # sums, which need brackets, come last
    return _scaled(factors[0] if len(factors) == 1 else Product(tuple(factors)), factor)
