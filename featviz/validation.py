"""Validation of plain values, with one-line messages that name the argument."""

from __future__ import annotations

import operator
from typing import Any

from featviz.errors import FeatvizError


def positive_int(name: str, value: Any) -> int:
    """Return ``value`` as an int of at least 1; numpy integers are accepted.

    Raises
    ------
    FeatvizError
        If it is not a whole number, or less than 1.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise FeatvizError(f"{name} must be a whole number, not {value!r}") from None
    if number < 1:
        raise FeatvizError(f"{name} must be positive, not {number}")
    return number
