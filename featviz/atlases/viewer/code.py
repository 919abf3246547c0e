"""Python that makes an image again, from the settings that were kept with it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

import torch

from featviz.optim.settings import Settings

#: What the pages put into the code of an image.
OBJECTIVE, SEED = "\x00objective\x00", "\x00seed\x00"
#: Settings of a file that code can repeat as they are, in the order of the code.
_RECORDED = [f for f in dataclasses.fields(Settings) if f.metadata["recorded"]]


def pieces(settings: Mapping[str, Any]) -> list[str]:
    """Return the code around objective and seed: ``a + objective + b + seed + c``."""
    before, _, rest = _code(settings).partition(OBJECTIVE)
    between, _, after = rest.partition(SEED)
    return [before, between, after]


def _code(settings: Mapping[str, Any]) -> str:
    imports, lines, notes = ["import featviz as fv"], [], []
    for field in _RECORDED:
        name, value = field.name, settings.get(field.name)
        if name == "optimizer":
            optimizer = settings.get(name, "adam")
            if optimizer in _optimizers():
                imports.insert(0, "import torch")
                lines.append(f"optimizer=torch.optim.{optimizer}")
            elif optimizer != "adam":
                notes.append(
                    f"its optimizer is a function{_called(optimizer)}: give yours as optimizer="
                )
        elif name == "schedule":
            if value is not None:
                notes.append(
                    f"its learning rate follows a function{_called(value)}: give yours as schedule="
                )
        elif name == "size":
            if isinstance(value, list) and all(isinstance(side, int) for side in value):
                comma = "," if len(value) == 1 else ""
                lines.append(f"size=({', '.join(map(str, value))}{comma})")
        elif isinstance(value, (int, float, str)):
            lines.append(f"{name}={_literal(value)}" if value != "" else f"{name}=()")
        elif field.metadata["cli"] is str and name in settings:
            what = "parameterization" if name == "param" else name
            notes.append(f"its {what} cannot be written as a text: give yours as {name}=")
    version, model = settings.get("version"), settings.get("model")
    head = [f"# made with featviz {_line(version)}"] if isinstance(version, str) else []
    if isinstance(model, str):
        load = [f"model = fv.load({_literal(model)})"]
    else:
        load = ["# the network has no name: wrap yours", "model = fv.Model(net)"]
    return "\n".join(
        [
            *head,
            *imports,
            "",
            *load,
            "result = fv.render(",
            "    model,",
            f"    {OBJECTIVE},",
            f"    seed={SEED},",
            *(f"    {line}," for line in lines),
            *(f"    # {note}" for note in notes),
            ")",
            'result.save("picture.png")',
            "",
        ]
    )


@functools.cache
def _optimizers() -> frozenset[str]:
    """Return the names of torch's optimizers."""
    kinds = vars(torch.optim).items()
    return frozenset(
        n for n, k in kinds if isinstance(k, type) and issubclass(k, torch.optim.Optimizer)
    )


def _literal(value: Any) -> str:
    """Write a number or text such that Python reads it again."""
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _called(name: Any) -> str:
    return f", {_line(name)}" if isinstance(name, str) else ""


def _line(text: str) -> str:
    """Return a text without what would end a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
