"""Deletion and insertion curves: the faithfulness of a heat map."""

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
    """Deletion and insertion curves of heat maps, and those of random orders. [Petsiuk2018]_.

    Values are scaled so that the whole image has 1 and the baseline 0; NaN if the baseline does not
    score below the image.

    Attributes
    ----------
    fractions
        (n + 1,): the fraction of the image that is deleted or inserted, from 0 to 1.
    deletion, insertion
        (B, n + 1): the value when that fraction of the image, hottest cells first, is replaced by
        the baseline, and when everything else is.
    deletion_auc, insertion_auc
        (B,): the areas under the curves. A faithful map has a small deletion area and a large
        insertion area.
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
        """(B,): whether the map deletes and inserts faster than every random order."""
        deletes = self.deletion_auc < self.random_deletion_auc.amin(1)
        return deletes & (self.insertion_auc > self.random_insertion_auc.amax(1))

    @property
    def record(self) -> dict[str, Any]:
        """The areas under the curves, for JSON: random orders averaged, None for NaN."""
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
    random_orders_of: Curves | None = None,
    traces: TraceCache | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
) -> Curves:
    """Return the deletion and insertion curves of ``heat`` (B, *size) on ``images`` (B, C, *size).

    Cells, ``cells`` along the longer side, are removed as a whole, by their mean heat: removing
    single pixels in any order adds noise that corrupts every image, and says little about the map.
    ``cells=None`` removes single pixels, as in the paper. Ties are broken at random.
    ``random_orders_of`` are curves of the same images, objectives, seeds and options with another
    heat: their random orders are the same ones, and are not evaluated again. ``traces`` shares the
    traced network with other measurements.

    Raises
    ------
    FeatvizError
        For counts below 1, or arguments that do not fit the network.
    """
    counts = {"steps": steps, "orders": orders, "cells": cells, "batch_size": batch_size}
    for name, count in counts.items():
        if count is None and name in ("cells", "batch_size"):
            continue
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise FeatvizError(f"{name} must be a positive whole number, not {count!r}")
    network = model.on(devices.resolve(device, model.device))
    chunk_size = evaluated_together(network.device, batch_size)
    traces = TraceCache() if traces is None else traces
    size = tuple(images.shape[2:])
    labels = grid(size, cells).flatten()
    count = int(labels.max()) + 1
    area = torch.bincount(labels, minlength=count).double()
    baselines = make_baseline(baseline, images)
    fractions = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    curves_by_image: list[list[Tensor]] = []
    with network.session():
        for i, goal in enumerate(goals):
            evaluator = Evaluator(
                network, goal, size, precision=precision, batch_size=chunk_size, traces=traces
            )
            image, base = (
                images[i : i + 1].to(network.device),
                baselines[i : i + 1].to(network.device),
            )
            rng = generator(seeds[i], "curves")
            shuffled = torch.randperm(count, generator=rng)
            cell_heat = torch.zeros(count, dtype=torch.float64)
            cell_heat = cell_heat.index_add(0, labels, heat[i].flatten().double()) / area
            order = shuffled[cell_heat[shuffled].argsort(descending=True, stable=True)]
            drawn = 0 if random_orders_of is not None else orders
            rankings = [order, *(torch.randperm(count, generator=rng) for _ in range(drawn))]
            curves = []
            for ranking in rankings:
                removed = area[ranking].cumsum(0) / area.sum()
                removed_at = torch.empty(count, dtype=torch.float64)
                removed_at[ranking] = removed  # removed fraction including this cell
                removal_map = (
                    removed_at[labels].view(1, 1, *size).to(image.dtype).to(network.device)
                )
                for endpoints in ((image, base), (base, image)):
                    values = [
                        evaluator.scores(_mixed(endpoints, removal_map, chunk))
                        for chunk in fractions.split(chunk_size)
                    ]
                    curves.append(torch.cat(values).double())
            curves_by_image.append(curves)
    scaled = [_normalized(curves) for curves in curves_by_image]
    table = torch.stack([torch.stack(curves) for curves in scaled])  # (B, 2 (1 + orders), n + 1)
    areas = torch.trapezoid(table, fractions, dim=-1)
    random_areas = areas[:, 2::2], areas[:, 3::2]
    if random_orders_of is not None:
        random_areas = random_orders_of.random_deletion_auc, random_orders_of.random_insertion_auc
    return Curves(fractions, table[:, 0], table[:, 1], areas[:, 0], areas[:, 1], *random_areas)


def _mixed(endpoints: tuple[Tensor, Tensor], removal_map: Tensor, fractions: Tensor) -> Tensor:
    """Return the first endpoint with fractions of its positions taken from the second."""
    limit = (
        fractions.to(removal_map.dtype)
        .to(removal_map.device)
        .view(-1, *(1,) * (removal_map.ndim - 1))
    )
    return torch.where(removal_map <= limit + 1e-6, endpoints[1], endpoints[0])


def _normalized(curves: list[Tensor]) -> list[Tensor]:
    full, base = curves[0][0], curves[0][-1]
    if not full > base:
        return [torch.full_like(curve, math.nan) for curve in curves]
    return [(curve - base) / (full - base) for curve in curves]
