"""Objective text to objectives: the names of the language and what they build."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from featviz.errors import FeatvizError, ObjectiveSyntaxError, did_you_mean
from featviz.objectives import units
from featviz.objectives.base import Objective, lift
from featviz.objectives.group import mean, per_sample
from featviz.objectives.parsing import Field, Number, Quoted, Tree, Unit, parse


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
        return _build(parse(source), source)
    if isinstance(source, Sequence):
        return per_sample([objective(item) for item in source])
    raise FeatvizError(f"an objective is an Objective or its text, not {type(source).__name__}")


def _whole(field: Field) -> int:
    if isinstance(field, tuple | Quoted):
        raise ValueError("expected a whole number")
    try:
        return int(field)
    except ValueError:
        raise ValueError(f"expected a whole number, not {field!r}") from None


def _word(field: Field) -> str:
    if isinstance(field, tuple):
        raise ValueError("expected a name")
    return str(field)


def _real(field: Field) -> float:
    try:
        return float(field)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"expected a number, not {field!r}") from None


def _class(field: Field) -> int | str:
    return str(field) if isinstance(field, Quoted) else _whole(field)


def _vector(field: Field) -> str | tuple[float, ...]:
    return field if isinstance(field, tuple) else str(field)


#: kind -> (how it is written, builder, converters of the fields, of further ones, of options)
KINDS: dict[str, tuple[str, Callable[..., Objective], tuple[Any, ...], Any, dict[str, Any]]] = {
    "channel": ("channel:LAYER:UNIT", units.channel, (_word, _whole), None, {}),
    "neuron": ("neuron:LAYER:UNIT[:Y:X]", units.neuron, (_word, _whole), _whole, {}),
    "layer": ("layer:LAYER", units.layer, (_word,), None, {}),
    "direction": (
        "direction:LAYER:FILE.npy",
        units.direction,
        (_word, _vector),
        None,
        {"cosine_power": _real},
    ),
    "class": ("class:INDEX", units.class_logit, (_class,), None, {"layer": _word}),
}

FUNCTIONS: dict[str, Callable[[list[Objective]], Objective]] = {
    "mean": mean,
    "per_sample": per_sample,
}

_OPERATORS: dict[str, Callable[..., Objective]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "neg": lambda a: -a,
}


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
        if tree.name in FUNCTIONS:
            return FUNCTIONS[tree.name](arguments)
    except ObjectiveSyntaxError:
        raise
    except FeatvizError as error:
        raise fail(str(error)) from error
    raise fail(f"no function {tree.name!r}{did_you_mean(tree.name, FUNCTIONS)}")


def _unit(tree: Unit, text: str) -> Objective:
    if tree.kind not in KINDS:
        hint = did_you_mean(tree.kind, KINDS) or f"; known: {', '.join(KINDS)}"
        raise ObjectiveSyntaxError(text, tree.position, f"no objective {tree.kind!r}{hint}")
    usage, build, converters, further, options = KINDS[tree.kind]
    plain = [*converters, *[further] * (len(tree.fields) - len(converters))]
    if len(tree.fields) < len(converters) or None in plain:
        raise ObjectiveSyntaxError(text, tree.places[-1], f"expected {usage}")
    values: list[Any] = []
    named: dict[str, Any] = {}
    for place, convert, field in zip(tree.places, plain, tree.fields, strict=False):
        values.append(_convert(convert, field, text, place, usage))
    for place, (key, field) in zip(tree.places[len(values) :], tree.options, strict=True):
        if key not in options:
            hint = did_you_mean(key, options)
            raise ObjectiveSyntaxError(text, place, f"{tree.kind} has no option {key!r}{hint}")
        named[key] = _convert(options[key], field, text, place, usage)
    return build(*values, **named)


def _convert(convert: Any, field: Field, text: str, place: int, usage: str) -> Any:
    try:
        return convert(field)
    except ValueError as error:
        raise ObjectiveSyntaxError(text, place, f"{error} in {usage}") from error
