"""Transparent images: colours and an opacity."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch

from featviz.errors import FeatvizError
from featviz.param.base import Param
from featviz.param.combine import Wrapped, join, part
from featviz.param.fourier import Fourier
from featviz.types import Self, State, Tensor

#: Background of a transparent image when its final score is computed: mid-gray.
FINAL_BACKGROUND = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alpha(Wrapped):
    """Images with an additional last channel, their opacity, from 0 to 1.

    During optimization the network sees them on a background that
    :class:`featviz.transforms.Background` redraws for every sample and step, so that regions that a
    unit does not need are better left transparent; finished images are composited onto gray.
    Nothing favours transparency where opacity does no harm: to reward it, multiply by the
    transparent fraction, ``channel(…) * (1 - channel("image", 3))``, where channel 3 of ``image``
    is the opacity. [Mordvintsev2018]_, "transparency".

    ``inner`` parameterizes the colours and ``cover`` the opacity, one channel, both in the same
    size.
    """

    transparent = True
    fades = False  # what no gradient sustains should be transparent, not half so
    parts: ClassVar = ("inner", "cover")
    cover: Param = dataclasses.field(
        default_factory=lambda: Fourier(channels=1, color="none", decay=1.5)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner.transparent or self.cover.transparent:
            raise FeatvizError(
                "alpha:alpha draws an opacity of an opacity: give alpha opaque parts"
            )

    def sized(self, channels: int, size: tuple[int, ...]) -> Self:
        sized = super().sized(channels, size)
        return dataclasses.replace(sized, cover=self.cover.sized(1, sized.shape))

    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        return join({p: getattr(self, p).init(seeds, device) for p in self.parts})

    def image(self, state: State) -> Tensor:
        """Return the images with their opacity, (B, C + 1, *size)."""
        return torch.cat([getattr(self, p).image(part(state, p)) for p in self.parts], 1)

    def flatten(self, images: Tensor) -> Tensor:
        colours, opacity = images[:, :-1], images[:, -1:]
        return torch.full_like(colours, FINAL_BACKGROUND).lerp(colours, opacity)

    def from_image(self, images: Tensor) -> Self:
        """Return this parameterization starting at images with opacity, (B, C + 1, *size)."""
        if images.ndim < 3 or images.shape[1] < 2:
            raise FeatvizError(
                f"Alpha starts from images with an opacity (B, C + 1, *size), not "
                f"{tuple(images.shape)}"
            )
        inner = self.inner.from_image(images[:, :-1])
        cover = self.cover.from_image(images[:, -1:])
        return dataclasses.replace(
            self, inner=inner, cover=cover, size=inner.size, channels=inner.channels
        )
