"""Images larger than memory: the network sees one tile of them at a time."""

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
    """Divide an axis into the fewest tiles of length ``tile``, or of the side where that is less.

    They are evenly spaced, the first and the last flush with the ends; where the side is no
    multiple, neighbours overlap. All have the same size, since some networks take no other.
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
    """Return how many times the network runs for one pass over images of ``size``."""
    return 1 if tile is None else math.prod(len(tile_axis(side, tile)) for side in size)


class TiledEvaluator(GradientEvaluator):
    """Scores and gradients of a batch, tile by tile; memory depends on the tile.

    The score is the mean of the tiles', each scored as an image of its own, and where tiles
    overlap the gradient is the mean of theirs. At the borders of tiles the network sees its own
    padding: shift the image between steps (:class:`featviz.transforms.Roll`), and no seam stays.
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
        self.places: list[Any] = [(..., *place) for place in itertools.product(*axes)]
        self.overlaps: list[Tensor] = []
        for axis, tiles in enumerate(axes):
            times = torch.zeros(size[axis])
            for place in tiles:
                times[place] += 1
            self.overlaps.append(times.view(-1, *(1,) * (len(size) - 1 - axis)).to(model.device))
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
        for place in self.places:
            tile = seen[place]
            each = super().gradients(tile, tile, progress, active)
            if each.by_images is not None:
                raise FeatvizError(
                    f"objective {self.objective} reads the whole clean image, which tiles do not "
                    "show: name a layer, such as layer=input, or leave tile out"
                )
            scores += each.scores / len(self.places)
            until += each.until / len(self.places)
            redirected |= each.redirected
            if each.by_seen is not None:
                total[place] += each.by_seen
        for times in self.overlaps:
            total /= times
        return Gradients(scores, None, total.div_(len(self.places)), redirected, until)

    def values(self, images: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        rows = [super(TiledEvaluator, self).values(seen[p], seen[p]) for p in self.places]
        scores, until = zip(*rows, strict=True)
        return torch.stack(scores).mean(0), torch.stack(until).mean(0)
