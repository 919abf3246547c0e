"""The public names with their signatures: ``python -m tests.api_surface`` writes them down anew."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import featviz as fv

SNAPSHOT = Path(__file__).with_name("api_surface.json")


def surface(owner: ModuleType = fv, prefix: str = "featviz") -> dict[str, Any]:
    """Return each public name with its signature; of classes the public members, too."""
    found: dict[str, Any] = {}
    for name in sorted(owner.__all__):
        item = getattr(owner, name)
        if inspect.ismodule(item):
            if hasattr(item, "__all__"):
                found |= surface(item, f"{prefix}.{name}")
        elif inspect.isclass(item):
            found[f"{prefix}.{name}"] = _members(item)
        elif callable(item):
            found[f"{prefix}.{name}"] = _signature(item)
        elif name != "__version__":
            found[f"{prefix}.{name}"] = type(item).__name__
    return found


def _signature(item: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(item)))


def _members(kind: type) -> dict[str, str]:
    members = {}
    if not issubclass(kind, (BaseException, enum.Enum)):
        members["()"] = _signature(kind)
    for base in reversed(kind.__mro__):
        if not base.__module__.startswith("featviz"):
            continue
        for name, value in vars(base).items():
            if name.startswith("_"):
                continue
            if isinstance(value, (staticmethod, classmethod)):
                members[name] = _signature(value.__func__)
            elif inspect.isfunction(value):
                members[name] = _signature(value)
            elif isinstance(value, property) or hasattr(value, "attrname"):
                members[name] = "property"
    if dataclasses.is_dataclass(kind):
        members |= {f.name: f"field: {f.type}" for f in dataclasses.fields(kind)}
    return dict(sorted(members.items()))


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(surface(), indent=1) + "\n")
