"""Images that do not fit into memory: the network processes one tile at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.optim.gradient_evaluator import GradientEvaluator, Gradients
from featviz.types import Tensor


def tile_axis(side: int, tile: int) -> list[slice]:
    """Divide an axis into the fewest tiles of length ``tile``, or ``side`` if that is smaller.

    The tiles are evenly spaced, flush with both ends, and overlap if the side is not a multiple.
    All have the same size, since some networks accept only one input size.
    """
    count = math.ceil(side / tile)
    length = min(side, tile)
    starts = [round(k * (side - length) / max(count - 1, 1)) for k in range(count)]
    return [slice(start, start + length) for start in starts]


def check_tile(tile: Any) -> int:
    """Return a tile's side in pixels; raise :class:`FeatvizError` for anything else."""
    if isinstance(tile, bool) or not isinstance(tile, int) or tile < 1:
        raise FeatvizError(f"tile must be a positive number of pixels, not {tile!r}")
    return tile


def tile_count(size: tuple[int, ...], tile: int | None) -> int:
    """Return the number of tiles, and thus of forward passes, for images of ``size``."""
    return 1 if tile is None else math.prod(len(tile_axis(side, tile)) for side in size)


class TiledEvaluator(GradientEvaluator):
    """Computes scores and gradients of a batch tile by tile; memory depends on the tile size.

    Each tile is scored as an image of its own, and the score is the mean over tiles. Where tiles
    overlap, their gradients are averaged. At tile borders the network sees its own padding; shift
    the image between steps (:class:`featviz.transforms.Roll`) to avoid visible seams.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        size: tuple[int, ...],
        *,
        tile: int,
        **options: Any,
    ) -> None:
        axes = [tile_axis(side, check_tile(tile)) for side in size]
        self.tile_slices: list[Any] = [(..., *slices) for slices in itertools.product(*axes)]
        self.overlap_counts: list[Tensor] = []
        for axis, tiles in enumerate(axes):
            counts = torch.zeros(size[axis])
            for tile_slice in tiles:
                counts[tile_slice] += 1
            self.overlap_counts.append(
                counts.view(-1, *(1,) * (len(size) - 1 - axis)).to(model.device)
            )
        super().__init__(model, objective, tuple(a[0].stop for a in axes), **options)

    def gradients(
        self,
        images: Tensor,
        seen: Tensor,
        progress: Tensor,
        active: Sequence[bool] | None = None,
    ) -> Gradients:
        total = torch.zeros_like(seen)
        scores, until = seen.new_zeros(2, len(seen))
        redirected = torch.zeros(len(seen), dtype=torch.bool, device=seen.device)
        for tile_slice in self.tile_slices:
            tile = seen[tile_slice]
            part = super().gradients(tile, tile, progress, active)
            if part.by_images is not None:
                raise FeatvizError(
                    f"objective {self.objective} reads the whole clean image, which is not "
                    "available in tiles: name a layer, such as layer=input, or omit tile"
                )
            scores += part.scores / len(self.tile_slices)
            until += part.until / len(self.tile_slices)
            redirected |= part.redirected
            if part.by_seen is not None:
                total[tile_slice] += part.by_seen
        for counts in self.overlap_counts:
            total /= counts
        return Gradients(scores, None, total.div_(len(self.tile_slices)), redirected, until)

    def values(self, images: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        rows = [super(TiledEvaluator, self).values(seen[p], seen[p]) for p in self.tile_slices]
        scores, until = zip(*rows, strict=True)
        return torch.stack(scores).mean(0), torch.stack(until).mean(0)
