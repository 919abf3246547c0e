"""Python that makes a picture again, from the settings that were kept with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: What the pages put into the code of a picture.
OBJECTIVE, SEED = "\x00objective\x00", "\x00seed\x00"
#: Settings that :func:`featviz.render` takes as they are.
_PLAIN = ("steps", "lr", "redirect", "precision")
#: Settings with a text, and what it takes where they have none.
_TEXTS = {"param": "parameterization", "transforms": "transforms"}
_OPTIMIZERS = ("ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD")  # fmt: skip  # noqa: E501


def pieces(settings: Mapping[str, Any]) -> list[str]:
    """Return the code around objective and seed: ``a + objective + b + seed + c``."""
    before, _, rest = _code(settings).partition(OBJECTIVE)
    between, _, after = rest.partition(SEED)
    return [before, between, after]


def _code(settings: Mapping[str, Any]) -> str:
    imports, lines, notes = ["import featviz as fv"], [], []
    model = settings.get("model")
    for key in _PLAIN:
        value = settings.get(key)
        if isinstance(value, (int, float, str)):
            lines.append(f"{key}={_literal(value)}")
    size = settings.get("size")
    if isinstance(size, list) and all(isinstance(side, int) for side in size):
        lines.insert(0, f"size=({', '.join(map(str, size))}{',' if len(size) == 1 else ''})")
    for key, what in _TEXTS.items():
        value = settings.get(key)
        if isinstance(value, str):
            lines.append(f"{key}={_literal(value)}" if value else f"{key}=()")
        elif key in settings:
            notes.append(f"its {what} cannot be written as a text: give yours as {key}=")
    optimizer = settings.get("optimizer", "adam")
    if optimizer in _OPTIMIZERS:
        imports.insert(0, "import torch")
        lines.append(f"optimizer=torch.optim.{optimizer}")
    elif optimizer != "adam":
        notes.append(f"its optimizer is a function{_called(optimizer)}: give yours as optimizer=")
    if settings.get("schedule") is not None:
        name = _called(settings["schedule"])
        notes.append(f"its learning rate follows a function{name}: give yours as schedule=")
    version = settings.get("version")
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


def _literal(value: Any) -> str:
    """Write a number or text such that Python reads it again."""
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _called(name: Any) -> str:
    return f", {_line(name)}" if isinstance(name, str) else ""


def _line(text: str) -> str:
    """Return a text without what would end a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
