"""What is known of the units beside their images: likeness, activations, examples."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from featviz.atlases.painter import Brief, Row, encode
from featviz.atlases.plan import Picture, goals
from featviz.atlases.similarity import by_weights, nearest
from featviz.atlases.store import DamagedError, Store
from featviz.dataset_examples.api import examples as find_examples
from featviz.dataset_examples.result import Examples
from featviz.errors import FeatvizWarning
from featviz.io.dataset import ImageDataset, picture_files
from featviz.objectives import Objective
from featviz.objectives import objective as as_objective
from featviz.optim.result import slug

#: Examples of a unit at each end.
K = 9
#: Units whose examples are held while the data goes by; of more, images are read a second time.
HELD = 1000


def observe(
    store: Store, brief: Brief, pictures: Sequence[Picture], dataset: Any, *, progress: bool = False
) -> bool:
    """Write the ``units`` tables of the layers, and with a dataset the ``examples``, too.

    What is there of the same units and the same files stays. Return whether Ctrl-C came.
    """
    named = goals(pictures)
    layers = {
        layer: {unit: named[layer, unit] for _, unit in group}
        for layer, group in itertools.groupby(named, key=lambda place: place[0])
    }
    rows = {layer: _stored(store, layer) for layer in layers}
    # A smaller plan takes nothing away.
    layers = {
        layer: {u: as_objective(row["objective"]) for u, row in rows[layer].items()} | units
        for layer, units in layers.items()
    }
    if dataset is None:
        for layer, units in layers.items():
            there = {u: r for u, r in rows[layer].items() if r["objective"] == str(units[u])}
            if len(there) < len(units):
                fresh = _by_weights(brief, layer, units)
                store.put("units", layer, [there.get(row["unit"], row) for row in fresh])
        return False
    mark = _mark(dataset)
    marks = store.about.get("examples", {})
    left = {
        layer: units
        for layer, units in layers.items()
        if mark is None
        or marks.get(layer) != mark
        or {u: r["objective"] for u, r in rows[layer].items() if r["images"] is not None}
        != {u: str(goal) for u, goal in units.items()}
    }
    if not left:
        return False
    found = find_examples(
        brief.home,
        dataset,
        [goal for units in left.values() for goal in units.values()],
        k=K,
        correlate=True,
        keep=sum(map(len, left.values())) <= HELD or not ImageDataset(dataset).repeatable,
        precision=brief.plan.precision,
        progress=progress,
    )
    if found.interrupted:
        return True
    quantiles = found.statistics.quantiles([q / 100 for q in range(101)])
    place = 0
    for layer, units in left.items():
        here = range(place, place + len(units))
        place += len(units)
        store.put("examples", layer, _examples(found, brief, layer, units, here))
        store.put("units", layer, _units(found, quantiles, brief, layer, units, here))
    if mark is not None:
        about = store.about  # as it is now: another run may have written it
        marks = about.get("examples", {}) | dict.fromkeys(left, mark)
        store.about = {**about, "examples": marks}
    return False


def _stored(store: Store, layer: str) -> dict[int, Row]:
    """Return the rows of a layer's table; one that is damaged is made anew."""
    try:
        return {row["unit"]: row for row in store.get("units", layer).to_pylist()}
    except DamagedError as error:
        warnings.warn(f"{error}; it is made again", FeatvizWarning, stacklevel=4)
        return {}


def _mark(dataset: Any) -> str | None:
    """Return what tells a folder's images from others; None for what is no folder."""
    if not isinstance(dataset, (str, Path)) or not Path(dataset).is_dir():
        return None
    digest = hashlib.blake2b(digest_size=8)
    for path in picture_files(dataset):
        digest.update(f"{path.relative_to(dataset)} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _bare(layer: str, units: dict[int, Objective]) -> list[Row]:
    return [{"layer": layer, "unit": u, "objective": str(goal)} for u, goal in units.items()]


def _by_weights(brief: Brief, layer: str, units: dict[int, Objective]) -> list[Row]:
    rows, numbers = _bare(layer, units), list(units)
    likeness = by_weights(brief.home, layer)
    if likeness is not None:
        _liken(rows, likeness[numbers][:, numbers], numbers, "weights")
    return rows


def _units(
    found: Examples,
    quantiles: torch.Tensor,
    brief: Brief,
    layer: str,
    units: dict[int, Objective],
    places: range,
) -> list[Row]:
    if found.correlations.get(layer, ([],))[0] == list(places):
        rows = _bare(layer, units)
        _liken(rows, found.correlation(layer), list(units), "activations")
    else:  # objectives of several layers
        rows = _by_weights(brief, layer, units)
    spread = found.statistics
    for row, place in zip(rows, places, strict=True):
        row["images"] = int(spread.count[place])
        if row["images"]:
            row["mean"], row["std"] = float(spread.mean[place]), float(spread.std[place])
            row["quantiles"] = quantiles[place].tolist()
    return rows


def _liken(rows: list[Row], likeness: torch.Tensor, units: list[int], by: str) -> None:
    if len(units) < 2:
        return
    indices, values = nearest(likeness)
    for row, near, value in zip(rows, indices.tolist(), values.tolist(), strict=True):
        kept = [(units[i], v) for i, v in zip(near, value, strict=True) if v >= -1.001]
        row["similar"] = [unit for unit, _ in kept]
        row["similarity"] = [v for _, v in kept]
        row["similar_by"] = by


def _examples(
    found: Examples, brief: Brief, layer: str, units: dict[int, Objective], places: range
) -> list[Row]:
    rows: list[Row] = []
    for (unit, goal), place in zip(units.items(), places, strict=True):
        for side in ("top", "bottom"):
            ranked = found.ranked(side)
            for rank, crop in enumerate(found.crops(place, side)):
                index = int(ranked.indices[place, rank])
                name = f"{slug(str(goal))}.{side}{rank}.{brief.encoding}"
                rows.append(
                    {
                        "layer": layer,
                        "unit": unit,
                        "objective": str(goal),
                        "side": side,
                        "rank": rank,
                        "value": float(ranked.values[place, rank]),
                        "source": found.sources[index],
                        "index": index,
                        "box": ranked.boxes[place, rank].tolist(),
                        "image": {"bytes": encode(crop, brief.encoding), "path": name},
                    }
                )
    return rows
