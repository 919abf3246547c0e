"""Build objectives from their text: the names of the language and their constructors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from featviz import plugins
from featviz.errors import FeatvizError, ObjectiveSyntaxError, did_you_mean
from featviz.objectives import arrays, custom
from featviz.objectives.base import ONE, Objective, lift, terms_of
from featviz.objectives.classes import class_logit
from featviz.objectives.facets import facet_of
from featviz.objectives.group import mean, per_sample
from featviz.objectives.parsing import Field, NumberNode, Tree, UnitNode, parse
from featviz.objectives.reduction import check as check_reduction
from featviz.objectives.relations import interpolate
from featviz.objectives.relevant_match import relevant
from featviz.objectives.schedule import ramp
from featviz.objectives.shorthand import suggestion
from featviz.objectives.unit import KINDS, Unit, usage


def objectives(source: str | int | Objective | Sequence[str | int | Objective]) -> list[Objective]:
    """Return one objective, or each of a list, as a list; as :func:`objective` reads them."""
    several = isinstance(source, Sequence) and not isinstance(source, str)
    return [objective(item) for item in (source if several else [source])]  # type: ignore[union-attr]


def objective(source: str | int | Objective | Sequence[str | int | Objective]) -> Objective:
    """Return the objective that a text describes; a list gives one objective per sample.

    An int is the logit of a class.

    >>> objective("channel:_blocks.10:42 - 0.5*channel:_blocks.10:7").parts[1]
    objective('channel:_blocks.10:7')
    >>> objective(["class:285", "class:985"])
    objective('per_sample(class:285, class:985)')

    Raises
    ------
    ObjectiveSyntaxError
        If the text cannot be parsed; the message marks the position with a caret.
    FeatvizError
        If ``source`` is anything else.
    """
    if isinstance(source, Objective):
        return source
    if isinstance(source, str):
        try:
            return _build(parse(source), source)
        except RecursionError:
            raise FeatvizError("objective is nested too deeply") from None
        except ObjectiveSyntaxError as error:
            hint = suggestion(source)
            if hint is None:
                raise
            raise ObjectiveSyntaxError(source, error.position, hint) from None
    if isinstance(source, int) and not isinstance(source, bool):
        return class_logit(source)
    if isinstance(source, Sequence):
        return per_sample([objective(item) for item in source])
    if callable(source):
        name = getattr(source, "__name__", None)
        if str(getattr(source, "__module__", None)).startswith("featviz.objectives") and name:
            raise FeatvizError(f"fv.{name} makes an objective: call it, as fv.channel(LAYER, 5)")
        raise FeatvizError(
            "a function of activations needs their layers: fv.function(function, 'output')"
        )
    raise FeatvizError(
        f"expected an Objective or its text, such as class:285, not {type(source).__name__}"
    )


_OPERATORS: dict[str, Callable[..., Objective]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "neg": lambda a: -a,
}
#: Functions of objectives and their number of arguments; None is any number.
_FUNCTIONS: dict[str, tuple[Callable[..., Objective], int | None]] = {
    "mean": (lambda *members: mean(members), None),
    "per_sample": (lambda *members: per_sample(members), None),
    "interpolate": (interpolate, 2),
    "relevant": (relevant, 2),
}


def names() -> list[str]:
    """Return every name that a text can start with, those of other packages included."""
    return sorted({*KINDS, *_FUNCTIONS, *_WITH_NUMBERS, *plugins.names(plugins.OBJECTIVES)})


def _build(tree: Tree, text: str) -> Objective:
    if isinstance(tree, NumberNode):
        return lift(tree.value)
    if isinstance(tree, UnitNode):
        return _unit(tree, text)
    fail = functools.partial(ObjectiveSyntaxError, text, tree.position)
    arguments = [_build(a, text) for a in tree.arguments]
    try:
        if tree.name in _OPERATORS:
            return _OPERATORS[tree.name](*arguments)
        if tree.name in _WITH_NUMBERS:
            return _WITH_NUMBERS[tree.name](arguments)
        if tree.name in _FUNCTIONS:
            build, count = _FUNCTIONS[tree.name]
            if count not in (None, len(arguments)):
                raise FeatvizError(f"{tree.name} takes {count} objectives, not {len(arguments)}")
            return build(*arguments)
    except ObjectiveSyntaxError:
        raise
    except FeatvizError as error:
        raise fail(str(error)) from error
    hint = did_you_mean(tree.name, [*_FUNCTIONS, *_WITH_NUMBERS, *KINDS])
    raise fail(f"no function {tree.name!r}{hint}")


def _ramp(arguments: list[Objective]) -> Objective:
    numbers = [_number(a) for a in arguments]
    if not 2 <= len(numbers) <= 4 or None in numbers:
        raise FeatvizError("ramp takes two to four numbers: ramp(FIRST, LAST[, BEGIN, END])")
    return ramp(*(n for n in numbers if n is not None))


def _faceted(arguments: list[Objective]) -> Objective:
    numbers = [_number(a) for a in arguments[2:]]
    if not 2 <= len(arguments) <= 3 or None in numbers:
        raise FeatvizError(
            "faceted takes an objective, a direction and a weight: "
            "faceted(OBJECTIVE, direction:LAYER:VECTOR[, WEIGHT])"
        )
    return facet_of(arguments[0], arguments[1], *(n for n in numbers if n is not None))


#: Functions of which some arguments are plain numbers.
_WITH_NUMBERS: dict[str, Callable[[list[Objective]], Objective]] = {
    "faceted": _faceted,
    "ramp": _ramp,
}


def _number(objective: Objective) -> float | None:
    """Return the value of an objective that is a plain number."""
    terms = terms_of(objective)
    return sum(c for c, _ in terms) if all(part is ONE for _, part in terms) else None


def _unit(tree: UnitNode, text: str) -> Objective:
    unit_class = KINDS.get(tree.kind) or _plugin(tree, text)
    fields = dataclasses.fields(unit_class)  # type: ignore[arg-type]
    positional = [f for f in fields if f.default is dataclasses.MISSING]
    variadic = next((f for f in fields if f.metadata.get("rest")), None)
    options = {f.name: f for f in fields if f not in positional and f is not variadic}
    count = len(tree.fields)
    if count < len(positional) or (count > len(positional) and variadic is None):
        end = tree.position + len(tree.kind)
        position = tree.places[-1] if tree.places else end
        raise ObjectiveSyntaxError(text, position, f"expected {usage(unit_class)}")
    read = functools.partial(_read, text=text, expected=usage(unit_class))
    values: dict[str, Any] = {}
    for position, field, value in zip(tree.places, positional, tree.fields, strict=False):
        values[field.name] = read(field, value, position)
    if variadic is not None:
        extra = zip(
            tree.places[len(positional) : count], tree.fields[len(positional) :], strict=True
        )
        values[variadic.name] = tuple(read(variadic, value, position) for position, value in extra)
    for position, (key, value) in zip(tree.places[count:], tree.options, strict=True):
        if key not in options:
            hint = did_you_mean(key, options)
            raise ObjectiveSyntaxError(text, position, f"{tree.kind} has no option {key!r}{hint}")
        values[key] = read(options[key], value, position)
    return unit_class(**values)


def _plugin(tree: UnitNode, text: str) -> type[Unit]:
    """Return the class of a kind that is not built in."""
    try:
        unit_class = plugins.find(plugins.OBJECTIVES, tree.kind, Unit)
    except FeatvizError as error:
        raise ObjectiveSyntaxError(text, tree.position, str(error)) from error
    if unit_class is None:
        known = sorted({*KINDS, *plugins.names(plugins.OBJECTIVES)})
        hint = did_you_mean(tree.kind, known) or f"; known: {', '.join(known)}"
        raise ObjectiveSyntaxError(text, tree.position, f"no objective {tree.kind!r}{hint}")
    if unit_class.kind != tree.kind:
        problem = f"plug-in {tree.kind!r} is of kind {unit_class.kind!r}: they must be the same"
        raise ObjectiveSyntaxError(text, tree.position, problem)
    return unit_class


def _read(
    field: dataclasses.Field[Any], value: Field, position: int, text: str, expected: str
) -> Any:
    try:
        parsed = field.metadata["read"](value)
        if field.name == "reduce":
            check_reduction(parsed)
        return custom.recall(arrays.recall(parsed)) if isinstance(parsed, str) else parsed
    except FeatvizError as error:
        raise ObjectiveSyntaxError(text, position, str(error)) from error
    except ValueError as error:
        raise ObjectiveSyntaxError(text, position, f"{error} in {expected}") from error
