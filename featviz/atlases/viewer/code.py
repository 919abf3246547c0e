"""Python code that renders an image again, from its stored settings."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

import torch

from featviz.optim.optimizers import SCHEDULES
from featviz.optim.settings import Settings
from featviz.optim.upgrade import upgraded

#: Placeholders that the pages replace by the objective and seed of an image.
OBJECTIVE, SEED = "\x00objective\x00", "\x00seed\x00"
#: The recorded settings, in the order of the code.
_RECORDED = [f for f in dataclasses.fields(Settings) if f.metadata["recorded"]]


def pieces(settings: Mapping[str, Any]) -> list[str]:
    """Return the code as ``[a, b, c]``, for ``a + objective + b + seed + c``."""
    before, _, tail = _code(settings).partition(OBJECTIVE)
    between, _, after = tail.partition(SEED)
    return [before, between, after]


def _code(settings: Mapping[str, Any]) -> str:
    settings = upgraded(settings)
    imports, lines, notes = ["import featviz as fv"], [], []
    for field in _RECORDED:
        name, value = field.name, settings.get(field.name)
        if name == "optimizer":
            optimizer = settings.get(name, "adam")
            if optimizer in _optimizers():
                imports.insert(0, "import torch")
                lines.append(f"optimizer=torch.optim.{optimizer}")
            elif optimizer not in ("adam", "normalized"):
                notes.append(
                    f"the optimizer is a function{_called(optimizer)}: pass your own as optimizer="
                )
        elif name == "schedule":
            if isinstance(value, str) and value in SCHEDULES:
                lines.append(f"schedule={_literal(value)}")
            elif value is not None:
                notes.append(
                    f"the schedule is a function{_called(value)}: pass your own as schedule="
                )
        elif name == "size":
            if isinstance(value, list) and all(isinstance(side, int) for side in value):
                comma = "," if len(value) == 1 else ""
                lines.append(f"size=({', '.join(map(str, value))}{comma})")
        elif isinstance(value, (int, float, str)):
            lines.append(f"{name}={_literal(value)}" if value != "" else f"{name}=()")
        elif field.metadata["cli"] is str and name in settings:
            label = "parameterization" if name == "param" else name
            notes.append(f"the {label} has no text form: pass your own as {name}=")
    version, model = settings.get("version"), settings.get("model")
    header = [f"# made with featviz {_line(version)}"] if isinstance(version, str) else []
    if isinstance(model, str):
        load_lines = [f"model = fv.load({_literal(model)})"]
    else:
        load_lines = ["# the network has no name: wrap your own", "model = fv.Model(net)"]
    return "\n".join(
        [
            *header,
            *imports,
            "",
            *load_lines,
            "result = fv.render(",
            "    model,",
            f"    {OBJECTIVE},",
            f"    seed={SEED},",
            *(f"    {line}," for line in lines),
            *(f"    # {note}" for note in notes),
            ")",
            'result.save("image.png")',
            "",
        ]
    )


@functools.cache
def _optimizers() -> frozenset[str]:
    """Return the names of torch's optimizers."""
    members = vars(torch.optim).items()
    return frozenset(
        n for n, c in members if isinstance(c, type) and issubclass(c, torch.optim.Optimizer)
    )


def _literal(value: Any) -> str:
    """Return the Python literal of a number or text."""
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _called(name: Any) -> str:
    return f", {_line(name)}" if isinstance(name, str) else ""


def _line(text: str) -> str:
    """Return a text in one printable line, so that it can stand in a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
