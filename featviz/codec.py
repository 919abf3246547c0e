"""The text of a small settings object: ``scale:0.5:1.2`` or ``fourier:decay=1.2:range=clamp``.

The name of the class, then its fields in their order or by name, as in the objective language.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from featviz.errors import FeatvizError, did_you_mean


def read(text: str, registry: Mapping[str, type], what: str) -> Any:
    """Build the object that ``text`` describes from the classes of ``registry``.

    Raises
    ------
    FeatvizError
        For an unknown name or setting, or a value of the wrong type.
    """
    name, *words = text.strip().split(":")
    if name not in registry:
        hint = did_you_mean(name, registry) or f"; known: {', '.join(sorted(registry))}"
        raise FeatvizError(f"no {what} {name!r}{hint}")
    fields = {f.name: f for f in _settings(registry[name])}
    names = list(fields)
    values: dict[str, Any] = {}
    for index, word in enumerate(words):
        key, given, value = word.partition("=")
        if not given:
            if index >= len(names):
                raise FeatvizError(f"{what} {text!r}: {name} takes {len(names)} values")
            key, value = names[index], word
        if key not in fields:
            raise FeatvizError(f"{what} {text!r}: no setting {key!r}{did_you_mean(key, names)}")
        values[key] = _convert(value, fields[key], f"{what} {text!r}")
    try:
        return registry[name](**values)
    except TypeError as error:
        raise FeatvizError(f"{what} {text!r}: {error}") from error


def write(item: Any, registry: Mapping[str, type]) -> str | None:
    """Return the text that builds ``item`` again, or None where there is none."""
    names = [name for name, kind in registry.items() if kind is type(item)]
    if not names:
        return None
    words = [names[0]]
    keyed = False
    for field in _settings(type(item)):
        value = getattr(item, field.name)
        if field.default is not dataclasses.MISSING and value == field.default:
            keyed = True  # what follows needs its name
            continue
        if not isinstance(value, (str, float, int)):
            return None
        word = value if isinstance(value, str) else format_number(value)
        words.append(f"{field.name}={word}" if keyed or field.kw_only else word)
    return ":".join(words)


#: Fields that belong to the run or hold what has no text.
_RUN = ("size", "channels", "start")


def _settings(kind: type) -> list[dataclasses.Field[Any]]:
    """Return the fields that are settings: the size and the starting image are the run's."""
    return [f for f in dataclasses.fields(kind) if f.name not in _RUN]


def _convert(value: str, field: dataclasses.Field[Any], where: str) -> Any:
    if not isinstance(field.default, (int, float)):
        return value
    try:
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
        return number
    except ValueError:
        raise FeatvizError(f"{where}: {field.name} must be a number, not {value!r}") from None


def format_number(value: float) -> str:
    """Write a number so that it reads back as the same float; whole ones without a point."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
