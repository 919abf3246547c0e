"""The options of :func:`featviz.dream`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, TypedDict

from featviz.errors import FeatvizError
from featviz.optim.tiling import check_tile
from featviz.options import Options, documented, option
from featviz.transforms import Transform
from featviz.types import Precision, Schedule
from featviz.validation import positive_int


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class DreamSettings(Options):
    """How :func:`featviz.dream` enhances an image."""

    octaves: int = option(4, "Number of octaves, from coarse to fine.", cli=int)
    octave_scale: float = option(1.4, "Factor between the sizes of two octaves.", cli=float)
    steps: int = option(10, "Updates per octave.", cli=int)
    lr: float = option(0.01, "Mean change of a pixel per step, in image units.", cli=float)
    jitter: float | None = option(
        None,
        "Largest cyclic shift before each step, in pixels (below 1: as a fraction of the side). "
        "Default: 32, or half the side of a tile.",
        cli=float,
    )
    normalize: Literal["mean", "max", "std"] = option(
        "mean",
        "What each gradient is divided by: the mean or max of its absolute value, or its standard "
        "deviation (std).",
    )
    schedule: Schedule | None = option(
        None, "Learning-rate factor as a function of the progress of each octave, from 0 to 1."
    )
    transforms: Sequence[Transform] | str = option(
        (),
        "Transforms after the cyclic shift, such as channel_noise:0.07 (noise in the network).",
        cli=str,
    )
    colors: Literal["free", "preserve"] = option(
        "free",
        "free, or preserve to keep the original's colours and change only their luminance.",
        cli=str,
    )
    tile: int | None = option(
        None,
        "Side in pixels of the tiles that the network processes one by one: memory then depends "
        "on the tile, not on the image size.",
        cli=int,
    )
    precision: Precision = option(
        "fp32", "Precision of the network's activations: fp32, bf16 or fp16.", cli=str
    )

    def resolve(self, channels: int) -> DreamSettings:
        """Resolve the defaults and check the values, for images with ``channels`` channels.

        Raises
        ------
        FeatvizError
            For invalid values.
        """
        positive_int("octaves", self.octaves)
        positive_int("steps", self.steps)
        for name, value, bound in (("lr", self.lr, 0), ("octave_scale", self.octave_scale, 1)):
            if not bound < value < math.inf:
                raise FeatvizError(f"{name} must be more than {bound}, not {value}")
        if self.colors not in ("free", "preserve"):
            raise FeatvizError(f"no colors {self.colors!r}: use free or preserve")
        if self.colors == "preserve" and channels != 3:
            raise FeatvizError(f"colors can be preserved for 3 channels, not for {channels}")
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
    transforms: Sequence[Transform] | str
    colors: Literal["free", "preserve"]
    tile: int | None
    precision: Precision
