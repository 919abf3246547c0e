"""Options that several commands share."""

from __future__ import annotations

import re
from typing import Any

import click


class _Size(click.ParamType):  # type: ignore[type-arg]
    name = "size"

    def convert(self, value: Any, param: Any, context: Any) -> Any:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", str(value))
        if match is None or not all(int(v) for v in match.groups() if v):
            self.fail(f"{value!r} is no size: give a side such as 224, or HxW such as 180x320")
        height = int(match[1])
        return (height, int(match[2] or height))


class _Seed(click.ParamType):  # type: ignore[type-arg]
    name = "seed"

    def convert(self, value: Any, param: Any, context: Any) -> Any:
        if isinstance(value, (int, list)):
            return value
        try:
            seeds = [int(word) for word in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is no seed: give a number, or several as 0,1,2")
        return seeds[0] if len(seeds) == 1 else seeds


SIZE = _Size()
SEED = _Seed()

tensorboard = click.option(
    "--tensorboard", metavar="DIR", help="Log pictures and scores for TensorBoard."
)
device = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."
)
precision = click.option(
    "--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
