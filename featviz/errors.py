"""What featviz says when it cannot go on: one line that names the culprit and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class FeatvizError(ValueError):
    """Unusable input. The message is one line; the command line prints it and exits with 2."""


class ModelError(FeatvizError):
    """A model that is unknown, not installed, or cannot run on the images it is given."""


class LayerError(FeatvizError):
    """A layer that does not exist, did not run, or returned something that is not one tensor."""


class UnitError(FeatvizError):
    """A channel, position, class or vector that the layer does not have."""


class ObjectiveSyntaxError(FeatvizError):
    """Objective text that does not parse.

    ``text`` is what was given and ``position`` the 0-based offset of the first character that
    could not be used; the message shows the text with a caret ``^`` at that place.
    """

    def __init__(self, text: str, position: int, problem: str) -> None:
        self.text, self.position, self.problem = text, position, problem
        marked = f"{text[:position]}^{text[position:]}"
        super().__init__(f"cannot read objective at column {position + 1}: {marked} ({problem})")


class OptimizationError(FeatvizError):
    """No image could be optimized. ``result`` (a :class:`featviz.Result`) holds what there is."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class FeatvizWarning(UserWarning):
    """Something that the user should know but that does not stop the work."""


def did_you_mean(name: str, choices: Iterable[str], *, most: int = 3) -> str:
    """Return ``"; did you mean 'a' or 'b'?"`` for the nearest of ``choices``, or ``""``.

    A choice that ends in the name, or that the name ends in, is near whatever its length.
    """
    choices = list(dict.fromkeys(choices))
    near = difflib.get_close_matches(name, choices, n=most, cutoff=0.6)
    tail = name.rpartition(".")[2]
    near += [c for c in choices if c not in near and tail and c.rpartition(".")[2] == tail]
    if not near:
        near = difflib.get_close_matches(name, choices, n=most, cutoff=0.4)
    return f"; did you mean {' or '.join(repr(c) for c in near[:most])}?" if near else ""
