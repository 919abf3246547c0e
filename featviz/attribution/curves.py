"""Whether a heat map says what matters: take pixels away, or bring them back, in its order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from featviz.attribution.baselines import baseline as make_baseline
from featviz.attribution.baselines import grid
from featviz.errors import FeatvizError
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.optim.batching import evaluated_together
from featviz.optim.evaluator import Evaluator
from featviz.optim.tracing import TraceCache
from featviz.seeds import generator
from featviz.types import Precision, Tensor


@dataclasses.dataclass(frozen=True)
class Curves:
    """Deletion and insertion curves of heat maps, with those of random orders. [Petsiuk2018]_.

    Values are divided so that the whole image's is 1 and the baseline's 0; NaN where the
    baseline's is not below the image's, so that there is nothing to take away.

    Attributes
    ----------
    fractions
        (n + 1,): the share of the image that is taken away, or shown, from 0 to 1.
    deletion, insertion
        (B, n + 1): the value when so much of the image, the hottest first, is the baseline's,
        and when only so much is not.
    deletion_auc, insertion_auc
        (B,): the areas under them. A good map deletes fast, so that the first is small, and
        inserts fast, so that the second is large.
    random_deletion_auc, random_insertion_auc
        (B, orders): the same for random orders of the same cells.
    """

    fractions: Tensor
    deletion: Tensor
    insertion: Tensor
    deletion_auc: Tensor
    insertion_auc: Tensor
    random_deletion_auc: Tensor
    random_insertion_auc: Tensor

    @property
    def beats_random(self) -> Tensor:
        """(B,): whether it deletes and inserts faster than each of the random orders does."""
        deletes = self.deletion_auc < self.random_deletion_auc.amin(1)
        return deletes & (self.insertion_auc > self.random_insertion_auc.amax(1))

    @property
    def record(self) -> dict[str, Any]:
        """The areas, for JSON: those of the random orders as their mean; None for NaN."""
        named = {
            "deletion_auc": self.deletion_auc,
            "insertion_auc": self.insertion_auc,
            "random_deletion_auc": self.random_deletion_auc.mean(1),
            "random_insertion_auc": self.random_insertion_auc.mean(1),
        }
        rows = {n: [v if math.isfinite(v) else None for v in t.tolist()] for n, t in named.items()}
        return {**rows, "beats_random": self.beats_random.tolist()}


def measure(
    model: Model,
    images: Tensor,
    heat: Tensor,
    goals: Sequence[Objective],
    seeds: Sequence[int],
    *,
    baseline: str | float | Tensor = "blur",
    cells: int | None = 28,
    steps: int = 28,
    orders: int = 4,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
) -> Curves:
    """Return the curves of ``heat`` (B, *size) on ``images`` (B, C, *size).

    ``cells`` along the longer side go as a whole, by their mean heat: single pixels that are taken
    away in any order make a noise that spoils every image, and say little of what they show.
    ``cells=None`` takes pixels, as in the paper. Of equal heat the order is drawn.

    Raises
    ------
    FeatvizError
        For counts below 1, or what does not fit the network.
    """
    counts = {"steps": steps, "orders": orders, "cells": cells, "batch_size": batch_size}
    for name, count in counts.items():
        if count is None and name in ("cells", "batch_size"):
            continue
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise FeatvizError(f"{name} must be a positive whole number, not {count!r}")
    home = model.on(devices.resolve(device, model.device))
    together = evaluated_together(home.device, batch_size)
    traces = TraceCache()
    size = tuple(images.shape[2:])
    labels = grid(size, cells).flatten()
    count = int(labels.max()) + 1
    area = torch.bincount(labels, minlength=count).double()
    grounds = make_baseline(baseline, images)
    fractions = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    rows: list[list[Tensor]] = []
    with home.session():
        for i, goal in enumerate(goals):
            evaluator = Evaluator(
                home, goal, size, precision=precision, batch_size=together, traces=traces
            )
            picture, ground = images[i : i + 1].to(home.device), grounds[i : i + 1].to(home.device)
            draw = generator(seeds[i], "curves")
            tie = torch.randperm(count, generator=draw)
            hot = torch.zeros(count, dtype=torch.float64)
            hot = hot.index_add(0, labels, heat[i].flatten().double()) / area
            order = tie[hot[tie].argsort(descending=True, stable=True)]
            ranks = [order, *(torch.randperm(count, generator=draw) for _ in range(orders))]
            found = []
            for ranked in ranks:
                reached = area[ranked].cumsum(0) / area.sum()
                when = torch.empty(count, dtype=torch.float64)
                when[ranked] = reached  # the share of the image that is gone once this cell is
                moments = when[labels].view(1, 1, *size).to(picture.dtype).to(home.device)
                for ends in ((picture, ground), (ground, picture)):
                    values = [
                        evaluator.scores(_mixed(ends, moments, part))
                        for part in fractions.split(together)
                    ]
                    found.append(torch.cat(values).double())
            rows.append(found)
    scaled = [_normalized(found) for found in rows]
    table = torch.stack([torch.stack(found) for found in scaled])  # (B, 2 (1 + orders), n + 1)
    areas = torch.trapezoid(table, fractions, dim=-1)
    return Curves(
        fractions,
        table[:, 0],
        table[:, 1],
        areas[:, 0],
        areas[:, 1],
        areas[:, 2::2],
        areas[:, 3::2],
    )


def _mixed(ends: tuple[Tensor, Tensor], moments: Tensor, fractions: Tensor) -> Tensor:
    """Return the first of ``ends`` with what goes until each of the fractions from the second."""
    until = fractions.to(moments.dtype).to(moments.device).view(-1, *(1,) * (moments.ndim - 1))
    return torch.where(moments <= until + 1e-6, ends[1], ends[0])


def _normalized(found: list[Tensor]) -> list[Tensor]:
    whole, nothing = found[0][0], found[0][-1]
    if not whole > nothing:
        return [torch.full_like(row, math.nan) for row in found]
    return [(row - nothing) / (whole - nothing) for row in found]
