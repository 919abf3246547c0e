"""The ``interpretability`` column: whether a unit's images tell judges what excites it.

[Zimmermann2024]_
"""

from __future__ import annotations

import functools
import io
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from featviz.atlases.batch_renderer import AtlasJob, Row
from featviz.atlases.plan import PlannedImage
from featviz.atlases.store import Store
from featviz.bars import tqdm
from featviz.dataset_examples.forced_choice import (
    DRAWN,
    FEWEST,
    OTHERS,
    JudgeEmbeddings,
    is_selection,
    score,
)
from featviz.errors import FeatvizError, FeatvizWarning, shorten
from featviz.io import decode
from featviz.io.dataset import ImageDataset
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.seeds import generator
from featviz.types import Tensor

#: Seed of the random images, the same for every atlas.
ONCE = 0


def find_judges(
    job: AtlasJob, judges: Sequence[str | Model] | str | Model, dataset: Any
) -> dict[str, Model]:
    """Return the judges of an atlas by name; a text names several, separated by commas.

    Raises
    ------
    FeatvizError
        If there are no images, or they cannot be read twice; if a judge is the network itself,
        cannot be loaded, or takes images of another shape.
    """
    if dataset is None:
        raise FeatvizError("judges compare with images that excite a unit: give images")
    if not ImageDataset(dataset).repeatable:
        raise FeatvizError("judges read images again: give a folder or a list")
    if job.plan.param.transparent:
        raise FeatvizError("judges need opaque images: use another param, or omit judges")
    if isinstance(judges, str):
        judges = [name.strip() for name in judges.split(",")]
    elif isinstance(judges, Model):
        judges = [judges]
    if not isinstance(judges, Sequence) or not judges:
        raise FeatvizError(
            f"judges must be networks or their names, not {shorten(repr(judges), 60)}"
        )
    own, found = job.network, {}
    for judge in judges:
        network = as_model(judge, "judges")
        name = network.name or type(network.net).__name__
        if network.net is job.model.net or (network.name is not None and network.name == own.name):
            raise FeatvizError(f"judge {name!r} is the network itself: name another one")
        if (network.channels, len(network.size)) != (own.channels, len(own.size)):
            raise FeatvizError(
                f"judge {name!r} takes images of {network.channels} channels, not {own.channels}"
            )
        if name in found:
            raise FeatvizError(f"judge {name!r} is named twice: name each once")
        found[name] = network.on(own.device)
    return found


def rate(
    store: Store,
    job: AtlasJob,
    planned: Sequence[PlannedImage],
    dataset: Any,
    judges: Mapping[str, Model],
    *,
    progress: bool | None = None,
) -> None:
    """Write ``interpretability`` and ``interpretability_by`` into the tables of the units.

    Units that these judges have rated by as many images are left as they are. The examples must be
    up to date: see :func:`featviz.atlases.unit_tables.observe`.
    """
    images = ImageDataset(dataset, job.network.crop)

    def read(index: int) -> Tensor:
        return images[index].image(job.network.channels, job.network.size)

    embeddings = {name: JudgeEmbeddings(judge, read) for name, judge in judges.items()}
    drawn = _readable(images, job.network)
    records = _records(store, job)
    shard = functools.lru_cache(maxsize=4)(store.pictures)
    few = 0
    for layer, of_layer in itertools.groupby(planned, key=lambda p: p.layer):
        units = {p.unit for p in of_layer}
        rows = store.get("units", layer).to_pylist()
        indices = _ranked(store, layer)
        todo = []
        for row in rows:
            raised, lowered = (records.get((layer, row["unit"], sign), ()) for sign in "+-")
            by = f"{', '.join(judges)}; images: {len(raised)} +, {len(lowered)} -"
            if row["unit"] in units and raised and row["interpretability_by"] != by:
                todo.append((row, by, raised, lowered))
        bar = tqdm(total=len(todo), unit=" units", progress=progress, leave=False)
        try:
            for row, by, raised, lowered in todo:
                top, bottom = (indices.get((row["unit"], side), []) for side in ("top", "bottom"))
                others = [index for index in drawn if index not in top]
                bar.update(1)
                if not is_selection(len(top), len(others)):
                    few = max(few, len(top), FEWEST)
                    continue
                shown, negatives = (_pictures(shard, job.network, r) for r in (raised, lowered))
                values = [
                    score(judge.told_apart(shown, negatives, top, bottom, others))
                    for judge in embeddings.values()
                ]
                row["interpretability"] = sum(values) / len(values)
                row["interpretability_by"] = by
        finally:  # also what was rated before Ctrl-C
            bar.close()
            if todo:
                store.put("units", layer, rows)
    if few:
        warnings.warn(
            f"too few images: the {few} that excite a unit most are no selection, and its "
            f"interpretability stays empty: give at least {few * (OTHERS + 1)}",
            FeatvizWarning,
            stacklevel=4,
        )


def _readable(images: ImageDataset, model: Model) -> list[int]:
    """Return the indices of random images; those that cannot be read are left out."""
    assert images.count is not None
    order = torch.randperm(images.count, generator=generator(ONCE, "images for judges"))
    readable: list[int] = []
    for index in order.tolist():
        try:
            images[index].image(model.channels, model.size)
        except FeatvizError:  # the search for examples has warned of it
            continue
        readable.append(index)
        if len(readable) == DRAWN:
            break
    return readable


def _ranked(store: Store, layer: str) -> dict[tuple[int, str], list[int]]:
    """Return the indices in the dataset of each unit's top and bottom images."""
    table = store.get("examples", layer).select(["unit", "side", "rank", "index"])
    ranked: dict[tuple[int, str], list[int]] = {}
    for row in sorted(table.to_pylist(), key=lambda row: row["rank"]):
        ranked.setdefault((row["unit"], row["side"]), []).append(row["index"])
    return ranked


def _records(store: Store, job: AtlasJob) -> dict[tuple[str, int, str], list[Row]]:
    """Return the records of the images with this job's settings, by layer, unit and sign."""
    digest, _ = job.identity
    found: dict[tuple[str, int, str], list[Row]] = {}
    for row in store.records().to_pylist():
        if row["settings_hash"] == digest and row["failure"] is None:
            found.setdefault((row["layer"], row["unit"], row["sign"]), []).append(row)
    return found


def _pictures(shard: Callable[..., Any], model: Model, records: Sequence[Row]) -> Tensor:
    """Return stored images (B, C, H, W) in [0, 1]; (0, C, 1, 1) without records."""
    pictures = [torch.zeros(0, model.channels, 1, 1)]
    for record in records:
        content = shard(record["shard"])["image"][record["row"]].as_py()
        with Image.open(io.BytesIO(content["bytes"])) as picture:
            pictures.append(decode.from_pil(picture, model.channels))
    return torch.cat(pictures[1:] or pictures)
