"""Validation of plain values, with one-line messages that name the argument."""

from __future__ import annotations

import difflib
import math
import operator
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from featviz.errors import FeatvizError, shorten

#: Largest count (steps, frames, images of a batch): more is a typing error.
MOST = 1_000_000
#: Largest number in the settings of a transform: a matrix of larger ones may not be finite.
LARGEST = 1e6
#: Largest seed is below this, so that seed + i still fits 64 bits.
SEED_LIMIT = 2**63
#: Numbers held for each value of an image: parameters, gradient, two moments, and the image.
COPIES = 5


def positive_int(name: str, value: Any, most: int = MOST) -> int:
    """Return ``value`` as an int from 1 to ``most``; numpy integers are accepted.

    Raises
    ------
    FeatvizError
        If it is not a whole number, less than 1, or more than ``most``.
    """
    return whole(name, value, 1, most)


def whole(name: str, value: Any, least: int, most: int) -> int:
    """Return ``value`` as an int from ``least`` to ``most``; raise :class:`FeatvizError`."""
    try:
        number = operator.index(value)
    except (TypeError, RuntimeError):  # torch raises the latter
        number = None
    if number is None or isinstance(value, bool):
        raise FeatvizError(f"{name} must be a whole number, not {_show(value)}")
    if number < least:
        wanted = {0: "not be negative", 1: "be positive"}.get(least, f"be at least {least}")
        raise FeatvizError(f"{name} must {wanted}, not {_show(number)}")
    if number > most:
        raise FeatvizError(f"{name} must be at most {most:,}, not {_show(number)}")
    return number


def real(name: str, value: Any, least: float, most: float, *, above: bool = False) -> float:
    """Return ``value`` as a finite float from ``least`` (or, with ``above``, above it) to ``most``.

    Raises
    ------
    FeatvizError
        If it is not a number, or outside these bounds.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if isinstance(value, (bool, str)) or math.isnan(number):
        raise FeatvizError(f"{name} must be a number, not {_show(value)}")
    if number < least or (above and number == least):
        if least == 0:
            wanted = "be positive" if above else "not be negative"
        else:
            wanted = f"be {'more than' if above else 'at least'} {least:g}"
        raise FeatvizError(f"{name} must {wanted}, not {_show(value)}")
    if number > most:
        raise FeatvizError(f"{name} must be at most {most:g}, not {_show(value)}")
    return number


def sides(name: str, value: Any, most: int = 2**31 - 1) -> tuple[int, ...]:
    """Return one to three sides of an image, which was given as an int (square) or a sequence."""
    if isinstance(value, (tuple, list)) and 1 <= len(value) <= 3:
        return tuple(whole(name, side, 1, most) for side in value)
    side = whole(name, value, 1, most)
    return (side, side)


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return ``value``, one of a few words; raise :class:`FeatvizError` for any other."""
    if isinstance(value, str) and value in choices:
        return value
    close = difflib.get_close_matches(value, choices, 1) if isinstance(value, str) else []
    hint = f"; did you mean {close[0]!r}?" if close else f": use {', '.join(choices)}"
    raise FeatvizError(f"no {name} {_show(value)}{hint}")


def switch(name: str, value: Any) -> bool:
    """Return ``value`` as a bool; raise :class:`FeatvizError` if it is anything else."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise FeatvizError(f"{name} must be True or False, not {_show(value)}")


def functions(name: str, value: Any) -> list[Any]:
    """Return a list of functions or other callbacks; raise :class:`FeatvizError` otherwise."""
    if isinstance(value, (list, tuple)):
        wrong = [item for item in value if not callable(item) and not hasattr(item, "on_step")]
        if wrong:
            raise FeatvizError(
                f"{name}: a callback is an object with on_step or a function, not {_show(wrong[0])}"
            )
        return list(value)
    raise FeatvizError(f"{name} must be a list, not {_show(value)}: put it in []")


def fits_memory(what: str, shape: tuple[int, ...]) -> None:
    """Raise :class:`FeatvizError` if optimizing an image of this shape needs more than the memory.

    The estimate is a lower bound: no image that fits is refused.
    """
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on every platform
        total = 2**40
    needed = 4 * COPIES * math.prod(shape)
    if needed > total:
        sides = "x".join(map(str, shape))
        raise FeatvizError(
            f"{what} of {sides} needs at least {needed / 2**30:,.0f} GiB, and this machine has "
            f"{total / 2**30:,.0f}: use a smaller size"
        )


def _show(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of more than 30 digits"  # Python refuses to print very long ones
    try:
        return shorten(repr(value), 60)
    except Exception:  # an object of the user's own
        return type(value).__name__
