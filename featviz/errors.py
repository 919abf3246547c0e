"""Exceptions and warnings, with one-line messages that name the culprit and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def shorten(text: str, most: int = 100) -> str:
    """Return ``text`` as one line of at most ``most`` characters, for use in a message."""
    line = " ".join(text[: 4 * most].split())
    return line if len(text) <= most else f"{line[: most - 1]}…"


#: Longest message, in characters: it may quote what a stranger wrote.
MAX_MESSAGE = 2000


class FeatvizError(ValueError):
    """Invalid input. The message is one line; the command line prints it and exits with code 2."""

    def __init__(self, message: object = "") -> None:
        super().__init__(shorten(str(message), MAX_MESSAGE))


class ModelError(FeatvizError):
    """A model that is unknown, not installed, or cannot process the given images."""


class LayerError(FeatvizError):
    """A layer that does not exist, did not run, or did not return a single tensor."""


class UnitError(FeatvizError):
    """A channel, position, class or vector that does not exist in the layer or does not fit it."""


#: Characters that are quoted on either side of the position of a syntax error.
_QUOTED = 150


class ObjectiveSyntaxError(FeatvizError):
    """Objective text that cannot be parsed.

    ``text`` is the input and ``position`` the 0-based offset of the first character that could
    not be parsed; the message shows the text around it, with a caret ``^`` at that position.
    """

    def __init__(self, text: str, position: int, problem: str) -> None:
        self.text, self.position, self.problem = text, position, problem
        start, end = max(0, position - _QUOTED), position + _QUOTED
        before = f"{'…' * (start > 0)}{text[start:position]}"
        marked = f"{before}^{text[position:end]}{'…' * (end < len(text))}"
        super().__init__(
            f"cannot parse objective at column {position + 1}: {marked} ({shorten(problem, 300)})"
        )


class OptimizationError(FeatvizError):
    """No image could be optimized. ``result`` (:class:`featviz.Result`) is the partial result."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class FeatvizWarning(UserWarning):
    """A problem that the user should know about but that does not stop the computation."""


def did_you_mean(name: str, choices: Iterable[str], *, most: int = 3) -> str:
    """Return ``"; did you mean 'a' or 'b'?"`` for the closest of ``choices``, or ``""``.

    A choice with the same last dotted component as ``name`` always counts as close.
    """
    choices = list(dict.fromkeys(choices))
    matches = difflib.get_close_matches(name, choices, n=most, cutoff=0.6)
    tail = name.rpartition(".")[2]
    matches += [c for c in choices if c not in matches and tail and c.rpartition(".")[2] == tail]
    if not matches:
        matches = difflib.get_close_matches(name, choices, n=most, cutoff=0.4)
    return f"; did you mean {' or '.join(repr(c) for c in matches[:most])}?" if matches else ""
