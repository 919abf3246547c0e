"""What other libraries' spellings of an objective are called here."""

from __future__ import annotations

import dataclasses
import re

from featviz import plugins
from featviz.objectives.unit import KINDS


def suggestion(text: str) -> str | None:
    """Return how to write a text that is not an objective, or None if nothing is known.

    >>> suggestion("mixed4a:476")
    "for channel 476 of layer 'mixed4a' write channel:mixed4a:476"
    >>> suggestion("blocks.3")
    "for layer 'blocks.3' write layer:blocks.3, for a channel of it channel:blocks.3:5"
    >>> suggestion("Egyptian cat")
    'for a class write class:"Egyptian cat"'
    """
    text = text.strip()
    unit = re.fullmatch(r"([A-Za-z_][\w.]*):(\d+)", text, re.ASCII)
    if unit and unit[1] not in {*KINDS, *plugins.names(plugins.OBJECTIVES)}:
        name, channel = unit.groups()
        return f"for channel {channel} of layer {name!r} write channel:{name}:{channel}"
    if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+|[A-Za-z_]+\d\w*", text, re.ASCII) and text not in KINDS:
        return f"for layer {text!r} write layer:{text}, for a channel of it channel:{text}:5"
    named = re.fullmatch(r"(\w+):([^\W\d_][\w' -]*)", text)
    if named and "target" in _field_names(named[1]):
        return f'put the name of a class in quotes: {named[1]}:"{named[2]}"'
    if re.fullmatch(r"[^\W\d_][\w' -]*", text) and "_" not in text and text not in KINDS:
        return f'for a class write class:"{text}"'
    return None


def _field_names(kind: str) -> list[str]:
    unit_class = KINDS.get(kind)
    return [] if unit_class is None else [f.name for f in dataclasses.fields(unit_class)]  # type: ignore[arg-type]
