"""How an image is dreamed: the options of :func:`featviz.dream`."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, TypedDict

from featviz.errors import FeatvizError
from featviz.optim.tiling import check_tile
from featviz.options import Options, documented, option
from featviz.types import Precision, Schedule
from featviz.validation import positive_int


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class DreamSettings(Options):
    """How :func:`featviz.dream` enhances an image."""

    octaves: int = option(4, "Sizes, from coarse to fine.", cli=int)
    octave_scale: float = option(1.4, "Factor between two sizes.", cli=float)
    steps: int = option(10, "Updates in each octave.", cli=int)
    lr: float = option(0.01, "Mean change of a pixel in a step, in image units.", cli=float)
    jitter: float | None = option(
        None,
        "Largest shift before each step, cyclic, in whole pixels (a fraction of the side below 1). "
        "Default: 32, or half a tile's side.",
        cli=float,
    )
    normalize: Literal["mean", "max", "std"] = option(
        "mean",
        "What each gradient is divided by: mean or max of its absolute value, or its standard "
        "deviation.",
    )
    schedule: Schedule | None = option(
        None, "Factor of the learning rate as a function of each octave's progress from 0 to 1."
    )
    colors: Literal["free", "preserve"] = option(
        "free",
        "preserve keeps the original's colours, each times the ratio of the luminances.",
        cli=str,
    )
    tile: int | None = option(
        None,
        "Side in pixels of the tiles that the network sees one at a time: any image size, and "
        "memory depends on the tile.",
        cli=int,
    )
    precision: Precision = option(
        "fp32", "Precision of the network's activations: fp32, bf16 or fp16.", cli=str
    )

    def resolve(self, channels: int) -> DreamSettings:
        """Return the settings with nothing left open, for images of some channels.

        Raises
        ------
        FeatvizError
            For values that cannot work.
        """
        positive_int("octaves", self.octaves)
        positive_int("steps", self.steps)
        for name, value, least in (("lr", self.lr, 0), ("octave_scale", self.octave_scale, 1)):
            if not least < value < math.inf:
                raise FeatvizError(f"{name} must be more than {least}, not {value}")
        if self.colors not in ("free", "preserve"):
            raise FeatvizError(f"no colors {self.colors!r}: they are free or preserve")
        if self.colors == "preserve" and channels != 3:
            raise FeatvizError(f"colors can be preserved in 3 channels, not in {channels}")
        if self.jitter is not None:
            return self
        return dataclasses.replace(
            self, jitter=32 if self.tile is None else check_tile(self.tile) // 2
        )


class DreamKeywords(TypedDict, total=False):
    """The fields of :class:`DreamSettings` as keywords."""

    octaves: int
    octave_scale: float
    steps: int
    lr: float
    jitter: float | None
    normalize: Literal["mean", "max", "std"]
    schedule: Schedule | None
    colors: Literal["free", "preserve"]
    tile: int | None
    precision: Precision
