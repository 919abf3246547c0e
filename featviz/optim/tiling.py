"""Pictures larger than memory: the network sees one tile of them at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.optim.evaluator import Bound, Climb
from featviz.types import Tensor


def cut(side: int, tile: int) -> list[slice]:
    """Cut an axis into the fewest pieces of ``tile``, or of the side where that is less.

    Evenly spaced, the first and the last flush with the ends; where the side is no multiple,
    neighbours overlap. All have the same size, since some networks take no other.
    """
    count = math.ceil(side / tile)
    length = min(side, tile)
    starts = [round(k * (side - length) / max(count - 1, 1)) for k in range(count)]
    return [slice(start, start + length) for start in starts]


def check(tile: Any) -> int:
    """Return a tile's side in pixels; raise :class:`FeatvizError` for anything else."""
    if isinstance(tile, bool) or not isinstance(tile, int) or tile < 1:
        raise FeatvizError(f"tile must be a positive number of pixels, not {tile!r}")
    return tile


def number(size: tuple[int, ...], tile: int | None) -> int:
    """Return how many times the network runs for one pass over pictures of ``size``."""
    return 1 if tile is None else math.prod(len(cut(side, tile)) for side in size)


class Tiled(Bound):
    """Scores and gradients of a batch, tile by tile; memory depends on the tile.

    The score is the mean of the tiles', each scored as a picture of its own, and where tiles
    overlap the gradient is the mean of theirs. At borders of tiles the network sees its own
    padding: shift the picture between steps (:class:`featviz.transforms.Roll`), and no seam stays.
    """

    def __init__(
        self, model: Model, objective: Objective, size: tuple[int, ...], *, tile: int, **more: Any
    ) -> None:
        axes = [cut(side, check(tile)) for side in size]
        self.places: list[Any] = [(..., *place) for place in itertools.product(*axes)]
        self.cover: list[Tensor] = []
        for axis, pieces in enumerate(axes):
            times = torch.zeros(size[axis])
            for piece in pieces:
                times[piece] += 1
            self.cover.append(times.view(-1, *(1,) * (len(size) - 1 - axis)).to(model.device))
        super().__init__(model, objective, tuple(a[0].stop for a in axes), **more)

    def climb(
        self,
        images: Tensor,
        seen: Tensor,
        progress: Tensor,
        scale: float,
        awake: Sequence[bool] | None = None,
    ) -> Climb:
        total = torch.zeros_like(seen)
        scores, checks = seen.new_zeros(2, len(seen))
        redirected = torch.zeros(len(seen), dtype=torch.bool, device=seen.device)
        for place in self.places:
            piece = seen[place]
            values, clean, gradient, acted, check = super().climb(
                piece, piece, progress, scale, awake
            )
            if clean is not None:
                raise FeatvizError(
                    f"objective {self.objective} reads the whole clean picture, which tiles do not "
                    "show: name a layer, such as layer=input, or leave tile out"
                )
            scores += values / len(self.places)
            checks += check / len(self.places)
            redirected |= acted
            if gradient is not None:
                total[place] += gradient
        for times in self.cover:
            total /= times
        return scores, None, total.div_(len(self.places)), redirected, checks

    def values(self, images: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        rows = [super(Tiled, self).values(seen[place], seen[place]) for place in self.places]
        scores, checks = zip(*rows, strict=True)
        return torch.stack(scores).mean(0), torch.stack(checks).mean(0)
