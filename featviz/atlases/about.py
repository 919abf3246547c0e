"""``atlas.json``: reading it from any hands, so that what it says has the expected types."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_layer(value: Any) -> bool:
    if isinstance(value, str):  # as early versions wrote it
        return True
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return False
    shape, units = value.get("shape", []), value.get("units", 0)
    return (
        _is_text(value.get("type"))
        and isinstance(shape, list)
        and all(isinstance(side, int) for side in shape)
        and isinstance(units, int)
    )


def _is_settings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(s, dict) for s in value.values())


def _list_of(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(test, value))


#: The entries that are read, and what each has to be; others are kept as they are.
_ENTRIES: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "model": lambda value: _is_text(value) or isinstance(value, dict),
    "network": lambda value: _is_text(value) or isinstance(value, dict),
    "model_hash": _is_text,
    "logits": _is_text,
    "classes": lambda value: value is None or _list_of(lambda name: isinstance(name, str))(value),
    "layers": _list_of(_is_layer),
    "settings": _is_settings,
    "examples": lambda value: isinstance(value, dict),
}


def parse(text: bytes) -> dict[str, Any]:
    """Return the content of ``atlas.json``.

    Raises
    ------
    ValueError
        If it is no JSON, or an entry has the wrong type; the message names it.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it is no object")
    for name, test in _ENTRIES.items():
        if name in content and not test(content[name]):
            raise ValueError(f"its {name} has the wrong type")
    return content
