"""The options of :func:`featviz.atlas`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from featviz.atlases.plan import Template, Units
from featviz.networks.model import Model
from featviz.optim.settings_keywords import SettingsKeywords
from featviz.options import Options, documented, option


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class AtlasSettings(Options):
    """Which images :func:`featviz.atlas` renders, and where."""

    units: Units = option(
        None, "Units of each layer: 0:32, 3,7 or 0:64:4, or indices. Default: all.", cli=str
    )
    signs: str | Sequence[str] = option("+-", "+ to maximize a unit, - to minimize it.", cli=str)
    seeds: int | Iterable[int] = option(0, "One image per seed: 0,1,2.", cli="seed")
    objective: Template = option(
        None,
        "Objective of an image: a text with {layer} and {unit}, or in Python a function of both. "
        "Default: channel:{layer}:{unit}.",
        cli=str,
        metavar="TEXT",
    )
    encoding: Literal["png", "webp"] = option(
        "png", "png, or webp, which is lossy and a fifth of the size.", cli=str
    )
    beside: bool = option(
        False,
        "Allow images with different settings, under another settings hash, in the same folder.",
        cli=bool,
    )
    workers: int = option(
        0,
        "Local worker processes, which share the cores and GPUs; 0 uses this process.",
        cli=int,
        bounds=(0, 1024),
    )
    ray: str | None = option(
        None,
        "Address of a Ray cluster that renders the images: auto, or host:6379.",
        cli=str,
        metavar="ADDRESS",
    )
    judges: Sequence[str | Model] | str | Model | None = option(
        None,
        "Networks that had no part in the images, as efficientnet_lite1,efficientnet_lite2: rate "
        "by their eyes whether the images tell what excites a unit. Needs images.",
        cli=str,
        metavar="MODEL,...",
    )
    tensorboard: str | Path | None = option(
        None, "TensorBoard folder for contact sheets of each layer during the run.", cli=str,
        metavar="DIR",
    )  # fmt: skip


class AtlasKeywords(SettingsKeywords, total=False):
    """The fields of :class:`AtlasSettings`, and of :class:`featviz.Settings`, as keywords."""

    units: Units
    signs: str | Sequence[str]
    seeds: int | Iterable[int]
    objective: Template
    encoding: Literal["png", "webp"]
    beside: bool
    workers: int
    ray: str | None
    judges: Sequence[str | Model] | str | Model | None
    tensorboard: str | Path | None
