"""Objective text to objectives: the names of the language and what they build."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from featviz.errors import FeatvizError, ObjectiveSyntaxError, did_you_mean
from featviz.objectives import arrays, custom
from featviz.objectives.base import ONE, Objective, lift, terms_of
from featviz.objectives.group import mean, per_sample
from featviz.objectives.parsing import Call, Field, Number, Tree, Unit, parse
from featviz.objectives.reduction import check as check_reduction
from featviz.objectives.relations import interpolate
from featviz.objectives.schedule import ramp
from featviz.objectives.unit import KINDS, usage


def objective(source: str | Objective | Sequence[str | Objective]) -> Objective:
    """Return the objective that a text describes; a list gives one objective per sample.

    >>> objective("channel:_blocks.10:42 - 0.5*channel:_blocks.10:7").parts[1]
    objective('channel:_blocks.10:7')
    >>> objective(["class:285", "class:985"])
    objective('per_sample(class:285, class:985)')

    Raises
    ------
    ObjectiveSyntaxError
        If the text does not parse, with a caret at the place.
    FeatvizError
        If ``source`` is something else.
    """
    if isinstance(source, Objective):
        return source
    if isinstance(source, str):
        try:
            return _build(parse(source), source)
        except RecursionError:
            raise FeatvizError("objective is nested too deeply") from None
    if isinstance(source, Sequence):
        return per_sample([objective(item) for item in source])
    raise FeatvizError(f"an objective is an Objective or its text, not {type(source).__name__}")


_OPERATORS: dict[str, Callable[..., Objective]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "neg": lambda a: -a,
}
#: Functions of objectives, and how many they take; None is any number.
_FUNCTIONS: dict[str, tuple[Callable[..., Objective], int | None]] = {
    "mean": (lambda *members: mean(members), None),
    "per_sample": (lambda *members: per_sample(members), None),
    "interpolate": (interpolate, 2),
}
#: Every name that a text can start with.
NAMES = frozenset({*KINDS, *_FUNCTIONS, "ramp"})


def _build(tree: Tree, text: str) -> Objective:
    if isinstance(tree, Number):
        return lift(tree.value)
    if isinstance(tree, Unit):
        return _unit(tree, text)
    fail = functools.partial(ObjectiveSyntaxError, text, tree.position)
    arguments = [_build(a, text) for a in tree.arguments]
    try:
        if tree.name in _OPERATORS:
            return _OPERATORS[tree.name](*arguments)
        if tree.name == "ramp":
            return _ramp(tree, arguments)
        if tree.name in _FUNCTIONS:
            build, count = _FUNCTIONS[tree.name]
            if count not in (None, len(arguments)):
                raise FeatvizError(f"{tree.name} takes {count} objectives, not {len(arguments)}")
            return build(*arguments)
    except ObjectiveSyntaxError:
        raise
    except FeatvizError as error:
        raise fail(str(error)) from error
    hint = did_you_mean(tree.name, [*_FUNCTIONS, "ramp", *KINDS])
    raise fail(f"no function {tree.name!r}{hint}")


def _ramp(tree: Call, arguments: list[Objective]) -> Objective:
    terms = [part for a in arguments for _, part in terms_of(a)]
    if not 2 <= len(arguments) <= 4 or any(part is not ONE for part in terms):
        raise FeatvizError("ramp takes two to four numbers: ramp(FIRST, LAST[, BEGIN, END])")
    return ramp(*(sum(c for c, _ in terms_of(a)) for a in arguments))


def _unit(tree: Unit, text: str) -> Objective:
    if tree.kind not in KINDS:
        hint = did_you_mean(tree.kind, KINDS) or f"; known: {', '.join(sorted(KINDS))}"
        raise ObjectiveSyntaxError(text, tree.position, f"no objective {tree.kind!r}{hint}")
    kind = KINDS[tree.kind]
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    plain = [f for f in fields if f.default is dataclasses.MISSING]
    rest = next((f for f in fields if f.metadata.get("rest")), None)
    options = {f.name: f for f in fields if f not in plain and f is not rest}
    given = len(tree.fields)
    if given < len(plain) or (given > len(plain) and rest is None):
        end = tree.position + len(tree.kind)
        place = tree.places[-1] if tree.places else end
        raise ObjectiveSyntaxError(text, place, f"expected {usage(kind)}")
    read = functools.partial(_read, text=text, wanted=usage(kind))
    values: dict[str, Any] = {}
    for place, field, value in zip(tree.places, plain, tree.fields, strict=False):
        values[field.name] = read(field, value, place)
    if rest is not None:
        more = zip(tree.places[len(plain) : given], tree.fields[len(plain) :], strict=True)
        values[rest.name] = tuple(read(rest, value, place) for place, value in more)
    for place, (key, value) in zip(tree.places[given:], tree.options, strict=True):
        if key not in options:
            hint = did_you_mean(key, options)
            raise ObjectiveSyntaxError(text, place, f"{tree.kind} has no option {key!r}{hint}")
        values[key] = read(options[key], value, place)
    return kind(**values)


def _read(field: dataclasses.Field[Any], value: Field, place: int, text: str, wanted: str) -> Any:
    try:
        found = field.metadata["read"](value)
        if field.name == "reduce":
            check_reduction(found)
        return custom.recall(arrays.recall(found)) if isinstance(found, str) else found
    except FeatvizError as error:
        raise ObjectiveSyntaxError(text, place, str(error)) from error
    except ValueError as error:
        raise ObjectiveSyntaxError(text, place, f"{error} in {wanted}") from error
