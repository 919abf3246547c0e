"""What the pages read: scripts that hand over JSON, since a page from a folder may not fetch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any


def script(key: str, value: Any) -> bytes:
    """Return a script that hands ``value`` to the pages under ``key``.

    It is plain ASCII without ``<``, ``>`` and ``&``: whatever the names in it are, no reader takes
    them for markup, or for an end of line within a string.
    """
    text = f"featviz.receive({_json(key)},{_json(value)});\n"
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text.encode("ascii")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def number(value: float | None) -> float | None:
    """Round to what float32 can tell apart on a screen; None for what is no number."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")


def numbers(values: Iterable[float | None] | None) -> list[float | None] | None:
    """Round each of some numbers."""
    return None if values is None else [number(value) for value in values]


def runs(units: Sequence[int]) -> list[list[int]]:
    """Return sorted numbers as runs: ``[0, 1, 2, 7]`` is ``[[0, 2], [7, 7]]``."""
    found: list[list[int]] = []
    for unit in units:
        if found and unit == found[-1][1] + 1:
            found[-1][1] = unit
        else:
            found.append([unit, unit])
    return found
