"""Objective text to an immutable tree, without touching a tensor, and back.

::

    sum     = product (("+" | "-") product)*
    product = sign (("*" | "/") sign)*
    sign    = "-" sign | atom
    atom    = number | unit | name "(" [sum ("," sum)*] ")" | "(" sum ")"
    unit    = kind (":" field)*              channel:_blocks.10:42   class:"Egyptian cat"
    field   = [key "="] (number | bare | quoted | "[" number ("," number)* "]")

A bare field is made of letters, digits, ``_``, ``.``, ``#`` and ``[...]`` as in ``lstm[0]``;
anything else (``-``, ``/``, spaces) goes into double quotes, with a backslash before ``"`` and
before a backslash. Fields stay text here (``1.10`` may be a layer); a unit knows which of its
fields are numbers.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import TypeAlias

from featviz.codec import format_number
from featviz.errors import ObjectiveSyntaxError


class Quoted(str):
    """A field that stood in double quotes."""

    __slots__ = ()


#: What a field may hold: a word or number as it was written, quoted text, or a vector.
Field: TypeAlias = str | Quoted | tuple[float, ...]

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BARE = r"[\w.#]+(?:\[[\w.]+\])*"
_TOKEN = re.compile(
    rf"(?P<space>\s+)|(?P<number>{_NUMBER})(?!\w)|(?P<name>[^\W\d]\w*)|(?P<mark>[-+*/(),])"
)
_FIELD = re.compile(
    rf':(?:(?P<key>[^\W\d]\w*)=)?(?:"(?P<quoted>(?:[^"\\]|\\.)*)"'
    rf"|\[(?P<vector>[^\[\]]*)\]|(?P<bare>-?{_NUMBER}(?![\w.#\[])|{_BARE}))"
)


@dataclasses.dataclass(frozen=True)
class Number:
    """A plain number."""

    value: float


@dataclasses.dataclass(frozen=True)
class Unit:
    """``kind:field:…:key=field``; it starts at ``position`` and its fields at ``places``."""

    kind: str
    fields: tuple[Field, ...]
    options: tuple[tuple[str, Field], ...]
    position: int
    places: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Call:
    """``name(a, b, …)``; the operators are calls of ``+``, ``-``, ``*``, ``/`` and ``neg``."""

    name: str
    arguments: tuple[Tree, ...]
    position: int


Tree: TypeAlias = Number | Unit | Call


def parse(text: str) -> Tree:
    """Parse objective text.

    >>> parse("-channel:a:3").name
    'neg'

    Raises
    ------
    ObjectiveSyntaxError
        With the place, and what was expected there.
    """
    reader = _Reader(text)
    tree = reader.sum()
    if reader.kind != "end":
        raise reader.error("expected an operator or the end")
    return tree


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0  # where the current token starts
        self.end = 0
        self.kind, self.value = "", ""
        self.step()

    def error(self, problem: str, position: int | None = None) -> ObjectiveSyntaxError:
        return ObjectiveSyntaxError(self.text, self.at if position is None else position, problem)

    def step(self) -> None:
        self.at = self.end
        if self.at == len(self.text):
            self.kind, self.value = "end", ""
            return
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            raise self.error("unexpected character")
        self.end = match.end()
        self.kind, self.value = str(match.lastgroup), match.group()
        if self.kind == "space":
            self.step()

    def take(self, *marks: str) -> str | None:
        if self.kind == "mark" and self.value in marks:
            mark = self.value
            self.step()
            return mark
        return None

    def sum(self) -> Tree:
        tree, at = self.product(), self.at
        while mark := self.take("+", "-"):
            tree, at = Call(mark, (tree, self.product()), at), self.at
        return tree

    def product(self) -> Tree:
        tree, at = self.sign(), self.at
        while mark := self.take("*", "/"):
            tree, at = Call(mark, (tree, self.sign()), at), self.at
        return tree

    def sign(self) -> Tree:
        at = self.at
        return Call("neg", (self.sign(),), at) if self.take("-") else self.atom()

    def atom(self) -> Tree:
        at = self.at
        if self.kind == "number":
            value = float(self.value)
            if not math.isfinite(value):
                raise self.error("number too large")
            self.step()
            return Number(value)
        if self.kind == "name":
            name = self.value
            if re.match(r"\s*\(", self.text[self.end :]):
                self.step()
                self.take("(")
                return Call(name, tuple(self.arguments()), at)
            return self.unit(name, at)
        if self.take("("):
            tree = self.sum()
            if not self.take(")"):
                raise self.error("expected ')'")
            return tree
        raise self.error("expected an objective such as channel:LAYER:UNIT")

    def arguments(self) -> Iterator[Tree]:
        if self.take(")"):
            return
        while True:
            yield self.sum()
            if self.take(")"):
                return
            if not self.take(","):
                raise self.error("expected ',' or ')'")

    def unit(self, kind: str, at: int) -> Unit:
        fields: list[Field] = []
        options: list[tuple[str, Field]] = []
        places: list[int] = []
        while self.text[self.end : self.end + 1] == ":":
            match = _FIELD.match(self.text, self.end)
            if match is None:
                raise self.error("expected a name, a number or a quoted text", self.end + 1)
            value = self.field(match)
            if match["key"]:
                options.append((match["key"], value))
            elif options:
                raise self.error("a plain field cannot follow key=value", self.end + 1)
            else:
                fields.append(value)
            places.append(self.end + 1)
            self.end = match.end()
        self.step()
        return Unit(kind, tuple(fields), tuple(options), at, tuple(places))

    def field(self, match: re.Match[str]) -> Field:
        if match["quoted"] is not None:
            return Quoted(re.sub(r"\\(.)", r"\1", match["quoted"]))
        if match["vector"] is not None:
            try:
                numbers = tuple(float(v) for v in match["vector"].split(","))
            except ValueError:
                numbers = (math.nan,)
            if not all(map(math.isfinite, numbers)):
                raise self.error("expected numbers between [ and ]", match.start("vector"))
            return numbers
        return str(match["bare"])


def format_field(value: str | float | tuple[float, ...]) -> str:
    """Write one field; text goes into quotes where it has to, :class:`Quoted` always does."""
    if isinstance(value, tuple):
        return "[" + ",".join(map(format_number, value)) + "]"
    if isinstance(value, (int, float)):
        return format_number(value)
    if not isinstance(value, Quoted) and re.fullmatch(_BARE, value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
