"""Records of earlier versions, in the terms of this one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: What the names of 0.1 stood for, whose defaults have changed since.
_STANDARD_0_1 = f"jitter:{1 / 7!r},rotate:15,scale:0.5:1.2,noise:0.1"


def upgraded(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the settings that an earlier version left out as its defaults."""
    upgraded = dict(record)
    if not re.match(r"0\.1(\.|$)", str(record.get("version", ""))):
        return upgraded
    if record.get("transforms") == "standard":
        upgraded["transforms"] = _STANDARD_0_1
    if record.get("transforms") == "lucid":
        upgraded["transforms"] = "pad:12:gray,jitter:8,scale:0.9:1.1,rotate:10,jitter:4"
    param = record.get("param")
    if isinstance(param, str):
        upgraded["param"] = re.sub(
            r"\bfourier\b(?!:(?:[^:]+:)*(?:decay=)?[\d.]+)", "fourier:decay=1", param
        )
    if record.get("schedule") is None:
        upgraded["schedule"] = "constant"
    return upgraded
