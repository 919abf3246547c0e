"""Text form of small settings objects: ``scale:0.5:1.2`` or ``fourier:decay=1.2:range=clamp``.

The class name comes first, then its fields, in order or by name, as in the objective language.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from featviz import plugins
from featviz.errors import FeatvizError, did_you_mean, shorten


def read(text: str, registry: Mapping[str, type], what: str, group: str, base: type) -> Any:
    """Build the object that ``text`` describes, an instance of a class in ``registry``.

    A name that is not in it may be that of a plug-in, in ``group``, derived from ``base``.

    Raises
    ------
    FeatvizError
        For an unknown name or setting, or a value of the wrong type.
    """
    name, *words = text.strip().split(":")
    kind = registry.get(name) or plugins.find(group, name, base)
    if kind is None:
        known = sorted({*registry, *plugins.names(group)})
        hint = did_you_mean(name[:100], known) or f"; known: {', '.join(known)}"
        raise FeatvizError(f"no {what} {shorten(repr(name))}{hint}")
    where = f"{what} {shorten(repr(text))}"
    fields = {f.name: f for f in _setting_fields(kind)}
    names = list(fields)
    values: dict[str, Any] = {}
    for index, word in enumerate(words):
        key, equals, value = word.partition("=")
        if not equals:
            if index >= len(names):
                raise FeatvizError(f"{where}: {name} takes {len(names)} values")
            key, value = names[index], word
        if key not in fields:
            hint = did_you_mean(key[:100], names)
            raise FeatvizError(f"{where}: no setting {shorten(repr(key))}{hint}")
        values[key] = _convert(value, fields[key], where)
    try:
        return kind(**values)
    except TypeError as error:
        raise FeatvizError(f"{where}: {error}") from error


def write(item: Any, registry: Mapping[str, type], group: str) -> str | None:
    """Return the text that :func:`read` turns back into ``item``, or None if there is none."""
    known = (name for name, cls in registry.items() if cls is type(item))
    name = next(known, None) or plugins.name_of(group, type(item))
    if name is None:
        return None
    words = [name]
    keyed = False
    for field in _setting_fields(type(item)):
        value = getattr(item, field.name)
        if field.default is not dataclasses.MISSING and value == field.default:
            keyed = True  # later fields have to be written by name
            continue
        if not isinstance(value, (str, float, int)):
            return None
        word = value if isinstance(value, str) else format_number(value)
        words.append(f"{field.name}={word}" if keyed or field.kw_only else word)
    return ":".join(words)


#: Fields that are set by the run or have no text form.
_NOT_SETTINGS = ("size", "channels", "start")


def _setting_fields(cls: type) -> list[dataclasses.Field[Any]]:
    """Return the fields that are settings; the run sets the size and the starting image."""
    return [f for f in dataclasses.fields(cls) if f.name not in _NOT_SETTINGS]


def _convert(value: str, field: dataclasses.Field[Any], where: str) -> Any:
    if not isinstance(field.default, (int, float)):
        return value
    try:
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
        return number
    except ValueError:
        raise FeatvizError(
            f"{where}: {field.name} must be a number, not {shorten(repr(value))}"
        ) from None


def format_number(value: float) -> str:
    """Format a number so that it parses back to the same float; whole numbers without a point."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
