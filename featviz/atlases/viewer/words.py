"""The words of a layer's units, by word, for the search box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def by_word(units: Sequence[int], statistics: Mapping[int, Mapping[str, Any]]) -> list[list[Any]]:
    """Return ``[word, units]`` for each word, sorted; the units whose best word it is come first.

    >>> by_word([3, 5], {3: {"words": ["cat", "dog"]}, 5: {"words": ["dog"]}})
    [['cat', [3]], ['dog', [5, 3]]]
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for unit in units:
        for rank, word in enumerate(statistics.get(unit, {}).get("words") or ()):
            if word:
                found.setdefault(word, []).append((rank, unit))
    return [[word, [unit for _, unit in sorted(found[word])]] for word in sorted(found)]
