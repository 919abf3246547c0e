"""Photographs seen through a mask, which is the only free part."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from featviz.errors import FeatvizError
from featviz.param.base import Param
from featviz.param.bounded import fit
from featviz.resample import resize
from featviz.types import State, Tensor

#: Of the smooth maximum, as in the paper.
_TEMPERATURE = 1 / 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mask(Param):
    """Transparent images with the colours of ``images`` and a free opacity.

    They are composited onto ``background``, for the network and when finished; both are
    (1 or B, C, *size) in [0, 1]. Objectives read the opacity as channel C of ``image``. It has
    ``cells`` values along the longer side, which start at ``start``, are clamped to [0, 1] and
    upsampled linearly; with ``hides`` they say how much is hidden instead of shown.

    With ``spread`` every position takes the smooth maximum over its neighbours, each weighted by
    exp(-(d / spread)^2 / 2) at a distance of d cells, so that a mask consists of soft discs of that
    size: the max-convolution of [Fong2019]_, here on the cells and not on the pixels.
    """

    transparent = True
    images: Tensor = dataclasses.field(compare=False, repr=False)
    background: Tensor = dataclasses.field(compare=False, repr=False)
    cells: int = 28
    spread: float = 0.0
    start: float = 1.0
    hides: bool = False

    def __post_init__(self) -> None:
        fit(self, self.images)
        if self.background.shape[1:] != self.images.shape[1:]:
            raise FeatvizError(
                f"background has shape {tuple(self.background.shape)}, the images "
                f"{tuple(self.images.shape)}"
            )
        if self.cells < 1 or not self.spread >= 0 or not 0 <= self.start <= 1:
            raise FeatvizError(
                "Mask takes cells of at least 1, spread of at least 0 and start in [0, 1], not "
                f"{self.cells}, {self.spread} and {self.start}"
            )

    @property
    def backdrop(self) -> Tensor:
        return self.background

    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        if {len(self.images), len(self.background)} - {1, len(seeds)}:
            raise FeatvizError(
                f"{len(self.images)} images and {len(self.background)} backgrounds for "
                f"{len(seeds)} samples"
            )
        shape = (len(seeds), 1, *cell_counts(self.shape, self.cells))
        return {"cover": torch.full(shape, self.start, device=device).requires_grad_()}

    def image(self, state: State) -> Tensor:
        """Return the images with their opacity, (B, C + 1, *size)."""
        cover = state["cover"]
        # One sample at a time: the last bit of an exponential depends on its index in the batch.
        opacity = resize(torch.cat([self._spread(sample) for sample in cover.split(1)]), self.shape)
        opacity = 1 - opacity if self.hides else opacity
        colours = self.images.to(opacity).expand(len(opacity), -1, *self.shape)
        return torch.cat([colours, opacity], 1)

    def flatten(self, images: Tensor) -> Tensor:
        return self.background.to(images).lerp(images[:, :-1], images[:, -1:])

    def project_(self, state: State) -> None:
        state["cover"].clamp_(0, 1)

    def _spread(self, cover: Tensor) -> Tensor:
        if not self.spread:
            return cover
        radius = max(1, round(2 * self.spread))
        sides = cover.shape[2:]
        # Replicated edges keep a mask of ones flat: corners are no easier to show or to hide.
        padded = F.pad(cover, (radius, radius) * len(sides), mode="replicate")
        shifted = []
        for shift in itertools.product(range(-radius, radius + 1), repeat=len(sides)):
            part = padded
            for axis, (step, side) in enumerate(zip(shift, sides, strict=True)):
                part = part.narrow(axis + 2, radius + step, side)
            squared_distance = sum(step * step for step in shift) / self.spread**2
            shifted.append(part * float(torch.exp(torch.tensor(-squared_distance / 2))))
        neighbours = torch.stack(shifted)
        return (neighbours * (neighbours / _TEMPERATURE).softmax(0)).sum(0)


def cell_counts(size: tuple[int, ...], cells: int | None) -> tuple[int, ...]:
    """Return the number of cells along each axis, with ``cells`` along the longest."""
    if cells is None:
        return size
    return tuple(min(side, max(1, round(side * cells / max(size)))) for side in size)
