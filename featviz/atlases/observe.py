"""What is known of the units beside their pictures: likeness, activations, examples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from featviz.atlases.paint import Brief, Row
from featviz.atlases.plan import Picture, goals
from featviz.atlases.similar import by_weights, nearest
from featviz.atlases.store import Store


def observe(
    store: Store,
    brief: Brief,
    pictures: Sequence[Picture],
    examples: Any,
    *,
    progress: bool = False,
) -> bool:
    """Write the ``units`` tables of the layers, and with a data set their examples."""
    named = goals(pictures)
    for layer, group in itertools.groupby(named, key=lambda place: place[0]):
        places = list(group)
        rows: list[Row] = [
            {"layer": layer, "unit": unit, "objective": str(named[layer, unit])}
            for _, unit in places
        ]
        likeness = by_weights(brief.job.model, layer)
        if likeness is not None:
            units = [unit for _, unit in places]
            _liken(rows, likeness[units][:, units], units, "weights")
        store.put("units", layer, rows)
    return False


def _liken(rows: list[Row], likeness: torch.Tensor, units: list[int], by: str) -> None:
    if len(units) < 2:
        return
    indices, values = nearest(likeness)
    for row, near, value in zip(rows, indices.tolist(), values.tolist(), strict=True):
        kept = [(units[i], v) for i, v in zip(near, value, strict=True) if v > -1]
        row["similar"] = [unit for unit, _ in kept]
        row["similarity"] = [v for _, v in kept]
        row["similar_by"] = by
