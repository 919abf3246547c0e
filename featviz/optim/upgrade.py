"""Read settings from records, those of earlier versions in the terms of this one."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

from featviz.errors import FeatvizError
from featviz.optim.optimizers import SIGNAL_SHRINKAGE

#: What the names of 0.1 stood for, whose defaults have changed since.
_STANDARD_0_1 = f"jitter:{1 / 7!r},rotate:15,scale:0.5:1.2,noise:0.1"

#: Longest text of a parameterization that is searched.
_LONGEST = 1000


def upgraded(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the settings that an earlier version left out as its defaults."""
    upgraded = {"prior": 0.0, "coarse": 0.0, "focus": 0.0, **record}
    if "weight_decay" not in record:
        upgraded["weight_decay"] = _weight_decay_before(record)
        if "param" in record:
            upgraded["param"] = _flat_pyramid(record["param"])
    if not re.match(r"0\.1(\.|$)", str(record.get("version", ""))):
        return upgraded
    if record.get("transforms") == "standard":
        upgraded["transforms"] = _STANDARD_0_1
    if record.get("transforms") == "lucid":
        upgraded["transforms"] = "pad:12:gray,jitter:8,scale:0.9:1.1,rotate:10,jitter:4"
    param = record.get("param")
    if isinstance(param, str) and re.search(r"\bfourier\b", param[:_LONGEST]):
        # The Fourier part is the last one of a text.
        param = param if "decay=" in param else f"{param}:decay=1"
        upgraded["param"] = f"{param}:chroma=0"
    if record.get("schedule") is None:
        upgraded["schedule"] = "constant"
    return upgraded


def _flat_pyramid(param: Any) -> Any:
    """Return a pyramid's text from before its levels had a decay; any other value as it is."""
    if isinstance(param, str) and re.match(r"(alpha:)?laplacian\b", param):
        return param.replace("laplacian", "laplacian:decay=0", 1)
    return param


def _weight_decay_before(record: Mapping[str, Any]) -> float:
    """Return the weight decay of a record from before it was a setting: that of signals."""
    lr = record.get("lr")
    if record.get("optimizer") != "normalized" or not isinstance(lr, (int, float)):
        return 0.0
    return SIGNAL_SHRINKAGE / lr if 0 < lr <= sys.float_info.max else 0.0


def recorded_value(field: dataclasses.Field[Any], value: Any) -> Any:
    """Convert a recorded value back to the value of the setting.

    Raises
    ------
    FeatvizError
        If the value has the wrong type.
    """
    value_type = field.metadata["cli"]
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if value_type == "size" and isinstance(value, (list, tuple)) and 1 <= len(value) <= 3:
        if all(isinstance(side, int) and not isinstance(side, bool) for side in value):
            return tuple(value)
    elif value_type is float and (is_int or isinstance(value, float)) and abs(value) < math.inf:
        if abs(value) <= sys.float_info.max:  # whole numbers have no limit
            return float(value)
    elif (value_type is int and is_int) or (value_type is str and isinstance(value, str)):
        return value
    shown = " ".join(repr(value).split())[:60]
    raise FeatvizError(f"its {field.name} is damaged: {shown}")
