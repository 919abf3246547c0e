"""Tables of the units of an atlas: similar units, activation statistics, dataset examples."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from featviz.atlases.batch_renderer import AtlasJob, Row, encode
from featviz.atlases.plan import PlannedImage, goals
from featviz.atlases.similarity import by_weights, nearest
from featviz.atlases.store import DamagedError, Store
from featviz.dataset_examples.api import examples as find_examples
from featviz.dataset_examples.result import Examples
from featviz.errors import FeatvizWarning
from featviz.io.dataset import ImageDataset, picture_files
from featviz.objectives import Objective
from featviz.objectives import objective as as_objective
from featviz.optim.result import slug

#: Number of top and of bottom examples per unit.
K = 9
#: Units up to which examples are cached in memory; for more, the images are read a second time.
HELD = 1000


def observe(
    store: Store,
    job: AtlasJob,
    planned: Sequence[PlannedImage],
    dataset: Any,
    *,
    progress: bool | None = None,
) -> bool:
    """Write the ``units`` table of each layer and, with a dataset, its ``examples`` table.

    Up-to-date tables, of the same units and files, are kept. Return whether Ctrl-C interrupted.
    """
    by_unit = goals(planned)
    layers = {
        layer: {unit: by_unit[layer, unit] for _, unit in group}
        for layer, group in itertools.groupby(by_unit, key=lambda key: key[0])
    }
    rows = {layer: _stored(store, layer) for layer in layers}
    # Units in the tables that are not in this plan are kept.
    layers = {
        layer: {u: as_objective(row["objective"]) for u, row in rows[layer].items()} | units
        for layer, units in layers.items()
    }
    if dataset is None:
        for layer, units in layers.items():
            current = {u: r for u, r in rows[layer].items() if r["objective"] == str(units[u])}
            if len(current) < len(units):
                computed = _by_weights(job, layer, units)
                store.put("units", layer, [current.get(row["unit"], row) for row in computed])
        return False
    fingerprint = _fingerprint(dataset)
    fingerprints = store.about.get("examples", {})
    outdated = {
        layer: units
        for layer, units in layers.items()
        if fingerprint is None
        or fingerprints.get(layer) != fingerprint
        or {u: r["objective"] for u, r in rows[layer].items() if r["images"] is not None}
        != {u: str(goal) for u, goal in units.items()}
    }
    if not outdated:
        return False
    natural = find_examples(
        job.network,
        dataset,
        [goal for units in outdated.values() for goal in units.values()],
        k=K,
        correlate=True,
        keep=sum(map(len, outdated.values())) <= HELD or not ImageDataset(dataset).repeatable,
        precision=job.plan.precision,
        progress=progress,
    )
    if natural.interrupted:
        return True
    quantiles = natural.statistics.quantiles([q / 100 for q in range(101)])
    start = 0
    for layer, units in outdated.items():
        columns = range(start, start + len(units))
        start += len(units)
        store.put("examples", layer, _examples(natural, job, layer, units, columns))
        made = _units(natural, quantiles, job, layer, units, columns)
        for row in made:  # words come from images of their own
            before = rows[layer].get(row["unit"], {})
            row |= {name: before.get(name) for name in ("words", "word_scores")}
        store.put("units", layer, made)
    if fingerprint is not None:
        about = store.about  # read again: another run may have written it
        fingerprints = about.get("examples", {}) | dict.fromkeys(outdated, fingerprint)
        store.about = {**about, "examples": fingerprints}
    return False


def _stored(store: Store, layer: str) -> dict[int, Row]:
    """Return the rows of a layer's table by unit; empty if it is damaged, to be made again."""
    try:
        return {row["unit"]: row for row in store.get("units", layer).to_pylist()}
    except DamagedError as error:
        warnings.warn(f"{error}; it is made again", FeatvizWarning, stacklevel=4)
        return {}


def _fingerprint(dataset: Any) -> str | None:
    """Return a hash of the file names and sizes of a folder; None if ``dataset`` is no folder."""
    if not isinstance(dataset, (str, Path)) or not Path(dataset).is_dir():
        return None
    digest = hashlib.blake2b(digest_size=8)
    for path in picture_files(dataset):
        digest.update(f"{path.relative_to(dataset)} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _empty_rows(layer: str, units: dict[int, Objective]) -> list[Row]:
    return [{"layer": layer, "unit": u, "objective": str(goal)} for u, goal in units.items()]


def _by_weights(job: AtlasJob, layer: str, units: dict[int, Objective]) -> list[Row]:
    rows, indices = _empty_rows(layer, units), list(units)
    similarity = by_weights(job.network, layer)
    if similarity is not None:
        _add_similar(rows, similarity[indices][:, indices], indices, "weights")
    return rows


def _units(
    natural: Examples,
    quantiles: torch.Tensor,
    job: AtlasJob,
    layer: str,
    units: dict[int, Objective],
    columns: range,
) -> list[Row]:
    if natural.correlations.get(layer, ([],))[0] == list(columns):
        rows = _empty_rows(layer, units)
        _add_similar(rows, natural.correlation(layer), list(units), "activations")
    else:  # objectives of several layers
        rows = _by_weights(job, layer, units)
    statistics = natural.statistics
    for row, column in zip(rows, columns, strict=True):
        row["images"] = int(statistics.count[column])
        if row["images"]:
            row["mean"], row["std"] = float(statistics.mean[column]), float(statistics.std[column])
            row["quantiles"] = quantiles[column].tolist()
    return rows


def _add_similar(rows: list[Row], similarity: torch.Tensor, units: list[int], source: str) -> None:
    if len(units) < 2:
        return
    indices, values = nearest(similarity)
    for row, neighbours, value in zip(rows, indices.tolist(), values.tolist(), strict=True):
        pairs = [(units[i], v) for i, v in zip(neighbours, value, strict=True) if v >= -1.001]
        row["similar"] = [unit for unit, _ in pairs]
        row["similarity"] = [v for _, v in pairs]
        row["similar_by"] = source


def _examples(
    natural: Examples, job: AtlasJob, layer: str, units: dict[int, Objective], columns: range
) -> list[Row]:
    rows: list[Row] = []
    for (unit, goal), column in zip(units.items(), columns, strict=True):
        for side in ("top", "bottom"):
            ranked = natural.ranked(side)
            for rank, crop in enumerate(natural.crops(column, side)):
                index = int(ranked.indices[column, rank])
                name = f"{slug(str(goal))}.{side}{rank}.{job.encoding}"
                rows.append(
                    {
                        "layer": layer,
                        "unit": unit,
                        "objective": str(goal),
                        "side": side,
                        "rank": rank,
                        "value": float(ranked.values[column, rank]),
                        "source": natural.sources[index],
                        "index": index,
                        "box": ranked.boxes[column, rank].tolist(),
                        "image": {"bytes": encode(crop, job.encoding), "path": name},
                    }
                )
    return rows
