"""Data files of the pages: scripts that pass JSON, since local pages may not fetch files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def script(key: str, value: Any) -> bytes:
    """Return a script that passes ``value`` to the pages under ``key``.

    It is plain ASCII without ``<``, ``>`` and ``&``, so that no text in it can be interpreted as
    markup or as a line terminator.
    """
    text = f"featviz.receive({_json(key)},{_json(value)});\n"
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("ascii")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def number(value: float | None) -> float | None:
    """Round to five significant digits; None if missing or not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")


def numbers(values: Iterable[float | None] | None) -> list[float | None] | None:
    """Round each value with :func:`number`."""
    return None if values is None else [number(value) for value in values]


def runs(units: Sequence[int]) -> list[list[int]]:
    """Return sorted integers as ranges: ``[0, 1, 2, 7]`` becomes ``[[0, 2], [7, 7]]``."""
    ranges: list[list[int]] = []
    for unit in units:
        if ranges and unit == ranges[-1][1] + 1:
            ranges[-1][1] = unit
        else:
            ranges.append([unit, unit])
    return ranges


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a unit's page shows of an image."""
    names = ("objective", "sign", "seed", "failure", "redirected", "file", "size")
    rounded = {name: number(row[name]) for name in ("score", "score_held_out", "seconds")}
    return {**{n: row[n] for n in names}, **rounded, "settings": row["settings_hash"]}


def figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a unit's page shows of its row in the table of units."""
    lists = {name: numbers(row[name]) for name in ("quantiles", "similarity")}
    rounded = {name: number(row[name]) for name in ("mean", "std", "interpretability")}
    names = ("images", "similar", "similar_by", "interpretability_by", "words")
    plain = {name: row[name] for name in names}
    return {**plain, **rounded, **lists}
