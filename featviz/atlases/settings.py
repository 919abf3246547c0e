"""What an atlas holds and who makes it: the options of :func:`featviz.atlas`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from featviz.atlases.plan import Template, Units
from featviz.errors import FeatvizError
from featviz.optim.settings import SettingsKeywords
from featviz.options import Options, documented, option


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class AtlasSettings(Options):
    """What :func:`featviz.atlas` holds, and who makes it."""

    units: Units = option(
        None, "Units of each layer: 0:32, 3,7 or 0:64:4, or numbers. Default: all.", cli=str
    )
    signs: str | Sequence[str] = option(
        "+-", "+ for what raises a unit, - for what lowers it.", cli=str
    )
    seeds: int | Iterable[int] = option(0, "One image a seed: 0,1,2.", cli="seed")
    objective: Template = option(
        None,
        "What an image shows: a text with {layer} and {unit}, or in Python a function of both. "
        "Default: channel:{layer}:{unit}.",
        cli=str,
        metavar="TEXT",
    )
    encoding: Literal["png", "webp"] = option(
        "png", "png, or webp: a fifth of the size, with some loss.", cli=str
    )
    beside: bool = option(
        False,
        "Add to a folder whose images were made with other settings, under another settings hash.",
        cli=bool,
    )
    workers: int = option(
        0, "Local processes that share the cores, and the GPUs in turn; 0 for this one.", cli=int
    )
    ray: str | None = option(
        None,
        "Address of a Ray cluster whose workers make the images: auto, or host:6379.",
        cli=str,
        metavar="ADDRESS",
    )
    tensorboard: str | Path | None = option(
        None, "Folder for contact sheets, layer by layer, as the run goes on.", cli=str,
        metavar="DIR",
    )  # fmt: skip

    def check(self) -> None:
        """Raise :class:`FeatvizError` for values that cannot work."""
        whole = isinstance(self.workers, int) and not isinstance(self.workers, bool)
        if not whole or self.workers < 0:
            raise FeatvizError(
                f"workers must be a whole number and not negative, not {self.workers!r}"
            )


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
    tensorboard: str | Path | None
