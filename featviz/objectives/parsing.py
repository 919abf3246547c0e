"""Parse objective text into an immutable tree, without touching a tensor, and format fields.

::

    sum     = product (("+" | "-") product)*
    product = sign (("*" | "/") sign)*
    sign    = "-" sign | atom
    atom    = number | unit | name "(" [sum ("," sum)*] ")" | "(" sum ")"
    unit    = kind (":" field)*              channel:_blocks.10:42   class:"Egyptian cat"
    field   = [key "="] (number | bare | quoted | "[" number ("," number)* "]")

A bare field consists of letters, digits, ``_``, ``.``, ``#`` and ``[...]`` as in ``lstm[0]``;
anything else (``-``, ``/``, spaces) has to be in double quotes, with a backslash before ``"`` and
backslashes. Fields remain text here (``1.10`` may be a layer); a unit knows which of its fields
are numbers.
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
    """A field that was written in double quotes."""

    __slots__ = ()


#: The value of a field: a word or number as written, quoted text, or a vector.
Field: TypeAlias = str | Quoted | tuple[float, ...]

# No digit can be matched in two ways, so that a failed match takes linear time.
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_BARE = r"[\w.#]+(?:\[[\w.]+\])*"
_TOKEN = re.compile(
    rf"(?P<space>\s+)|(?P<number>{_NUMBER})(?!\w)|(?P<name>[^\W\d]\w*)|(?P<mark>[-+*/(),])"
)
_FIELD = re.compile(
    rf':(?:(?P<key>[^\W\d]\w*)=)?(?:"(?P<quoted>(?:[^"\\]|\\.)*)"'
    rf"|\[(?P<vector>[^\[\]]*)\]|(?P<bare>-?{_NUMBER}(?![\w.#\[])|{_BARE}))"
)


_BRACKET = re.compile(r"\s*\(")
#: Longest text of an objective, in characters.
MAX_LENGTH = 2**18


@dataclasses.dataclass(frozen=True)
class NumberNode:
    """A plain number."""

    value: float


@dataclasses.dataclass(frozen=True)
class UnitNode:
    """``kind:field:…:key=field``, which starts at ``position``, and its fields at ``places``."""

    kind: str
    fields: tuple[Field, ...]
    options: tuple[tuple[str, Field], ...]
    position: int
    places: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class CallNode:
    """``name(a, b, …)``; operators are calls of ``+``, ``-``, ``*``, ``/`` and ``neg``."""

    name: str
    arguments: tuple[Tree, ...]
    position: int


Tree: TypeAlias = NumberNode | UnitNode | CallNode


def parse(text: str) -> Tree:
    """Parse objective text.

    >>> parse("-channel:a:3").name
    'neg'

    Raises
    ------
    ObjectiveSyntaxError
        With the position of the error and what was expected there.
    """
    if len(text) > MAX_LENGTH:
        problem = f"longer than {MAX_LENGTH:,} characters: use a list of objectives"
        raise ObjectiveSyntaxError(text, MAX_LENGTH, problem)
    parser = _Parser(text)
    tree = parser.sum()
    if parser.kind != "end":
        raise parser.error("expected an operator or the end")
    return tree


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.start = 0  # of the current token
        self.end = 0
        self.kind, self.value = "", ""
        self.advance()

    def error(self, problem: str, position: int | None = None) -> ObjectiveSyntaxError:
        return ObjectiveSyntaxError(
            self.text, self.start if position is None else position, problem
        )

    def advance(self) -> None:
        self.start = self.end
        if self.start == len(self.text):
            self.kind, self.value = "end", ""
            return
        match = _TOKEN.match(self.text, self.start)
        if match is None:
            raise self.error("unexpected character")
        self.end = match.end()
        self.kind, self.value = str(match.lastgroup), match.group()
        if self.kind == "space":
            self.advance()

    def accept(self, *marks: str) -> str | None:
        if self.kind == "mark" and self.value in marks:
            mark = self.value
            self.advance()
            return mark
        return None

    def sum(self) -> Tree:
        tree, start = self.product(), self.start
        while mark := self.accept("+", "-"):
            tree, start = CallNode(mark, (tree, self.product()), start), self.start
        return tree

    def product(self) -> Tree:
        tree, start = self.sign(), self.start
        while mark := self.accept("*", "/"):
            tree, start = CallNode(mark, (tree, self.sign()), start), self.start
        return tree

    def sign(self) -> Tree:
        start = self.start
        return CallNode("neg", (self.sign(),), start) if self.accept("-") else self.atom()

    def atom(self) -> Tree:
        start = self.start
        if self.kind == "number":
            value = float(self.value)
            if not math.isfinite(value):
                raise self.error("number too large")
            self.advance()
            return NumberNode(value)
        if self.kind == "name":
            name = self.value
            if _BRACKET.match(self.text, self.end):
                self.advance()
                self.accept("(")
                return CallNode(name, tuple(self.arguments()), start)
            return self.unit(name, start)
        if self.accept("("):
            tree = self.sum()
            if not self.accept(")"):
                raise self.error("expected ')'")
            return tree
        raise self.error("expected an objective such as channel:LAYER:UNIT")

    def arguments(self) -> Iterator[Tree]:
        if self.accept(")"):
            return
        while True:
            yield self.sum()
            if self.accept(")"):
                return
            if not self.accept(","):
                raise self.error("expected ',' or ')'")

    def unit(self, kind: str, start: int) -> UnitNode:
        fields: list[Field] = []
        options: list[tuple[str, Field]] = []
        places: list[int] = []
        while self.text[self.end : self.end + 1] == ":":
            match = _FIELD.match(self.text, self.end)
            if match is None:
                raise self.error("expected a name, a number or quoted text", self.end + 1)
            value = self.field(match)
            if match["key"]:
                options.append((match["key"], value))
            elif options:
                raise self.error("a positional field cannot follow key=value", self.end + 1)
            else:
                fields.append(value)
            places.append(self.end + 1)
            self.end = match.end()
        self.advance()
        return UnitNode(kind, tuple(fields), tuple(options), start, tuple(places))

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
    """Format one field; text is quoted where necessary, :class:`Quoted` text always."""
    if isinstance(value, tuple):
        return "[" + ",".join(map(format_number, value)) + "]"
    if isinstance(value, (int, float)):
        return format_number(value)
    if not isinstance(value, Quoted) and re.fullmatch(_BARE, value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
