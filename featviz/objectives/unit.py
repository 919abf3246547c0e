"""The base of all elementary objectives: their fields are their text.

A unit is a frozen dataclass. The fields without a default are the positional fields of its text,
in order; those with a default are its ``key=value`` options. Each field knows how to parse itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

from featviz.errors import FeatvizError, UnitError
from featviz.objectives.base import Objective
from featviz.objectives.parsing import Field, Quoted, format_field
from featviz.objectives.scene import IMAGE, Target
from featviz.types import LayerInfo

#: Every unit class of the language, by the kind that its text starts with.
KINDS: dict[str, type[Unit]] = {}


class Unit(Objective):
    """An objective that reads one layer; subclasses define how."""

    kind: ClassVar[str]
    layer: str

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "kind" in vars(cls):
            known = KINDS.get(cls.kind)
            if (
                known
                and known.__module__.startswith("featviz.")
                and cls.__module__ != known.__module__
            ):
                raise FeatvizError(
                    f"objective {cls.kind!r} is built in: call {cls.__name__} otherwise"
                )
            KINDS[cls.kind] = cls

    @property
    def layers(self) -> tuple[str, ...]:
        return () if self.layer == IMAGE else (self.layer,)

    def needs(self, target: Target) -> tuple[str, ...]:
        return self.layers

    def __str__(self) -> str:
        words = [self.kind]
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            write = field.metadata.get("write", _identity)
            if field.metadata.get("rest"):
                words += [format_field(v) for v in value]
            elif field.default is dataclasses.MISSING:
                words.append(format_field(write(value)))
            elif value != field.default:
                words.append(f"{field.name}={format_field(write(value))}")
        return ":".join(words)


def _identity(value: Any) -> Any:
    return value


def usage(unit_class: type[Unit]) -> str:
    """Return the syntax of a unit's text: ``neuron:LAYER:CHANNEL[:POSITION…]``."""
    text = unit_class.kind
    for field in dataclasses.fields(unit_class):  # type: ignore[arg-type]
        if field.metadata.get("rest"):
            text += f"[:{field.name.upper()}…]"
        elif field.default is dataclasses.MISSING:
            text += f":{field.name.upper()}"
        else:
            text += f"[:{field.name}=…]"
    return text


def _field(
    read: Callable[[Field], Any], default: Any = dataclasses.MISSING, **metadata: Any
) -> Any:
    return dataclasses.field(default=default, metadata={"read": read, **metadata})


def word(default: Any = dataclasses.MISSING) -> Any:
    """Declare a field of text."""
    return _field(_read_word, default)


def _read_word(value: Field) -> str:
    if isinstance(value, tuple):
        raise ValueError("expected a name")
    return str(value)


def whole(default: Any = dataclasses.MISSING) -> Any:
    """Declare a field that is a whole number."""
    return _field(read_whole, default)


def wholes() -> Any:
    """Declare a last field that collects all remaining whole numbers."""
    return dataclasses.field(default=(), metadata={"read": read_whole, "rest": True})


def words() -> Any:
    """Declare a last field that collects all remaining names."""
    return dataclasses.field(default=(), metadata={"read": _read_word, "rest": True})


def real(default: Any = dataclasses.MISSING) -> Any:
    """Declare a field that is a number."""

    def read(value: Field) -> float:
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"expected a finite number, not {value!r}")
        return number

    return _field(read, default)


def data(default: Any = dataclasses.MISSING) -> Any:
    """Declare a field of numbers: a vector in brackets, or the name of a file or array."""
    return _field(lambda value: value if isinstance(value, tuple) else str(value), default)


def name_or_index(default: Any = dataclasses.MISSING) -> Any:
    """Declare a field that is a name in quotes or an index without quotes."""

    def read(value: Field) -> int | str:
        return str(value) if isinstance(value, Quoted) else read_whole(value)

    def write(value: int | str) -> int | Quoted:
        return Quoted(value) if isinstance(value, str) else value

    return _field(read, default, write=write)


def quoted() -> Any:
    """Declare a field of free text, always written in quotes."""
    return _field(lambda value: str(value), write=Quoted)


def read_whole(value: Field) -> int:
    """Parse a whole number; raise ``ValueError`` for anything else."""
    try:
        if isinstance(value, (tuple, Quoted)):
            raise ValueError
        return int(value)
    except ValueError:
        raise ValueError(f"expected a whole number, not {value!r}") from None


def index(value: Any) -> int:
    """Return a whole number given in Python; raise :class:`UnitError` for anything else."""
    try:
        return int(value.__index__())
    except AttributeError:
        raise UnitError(f"expected a whole number, not {value!r}") from None


def check_index(number: int, count: int, what: str, info: LayerInfo) -> None:
    """Raise :class:`UnitError` with the valid range unless 0 <= number < count."""
    if not 0 <= number < count:
        raise UnitError(f"no {what} {number} in layer {info.name!r}: it has 0 to {count - 1}")
