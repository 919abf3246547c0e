"""Render an atlas: plan its images, skip those stored already, render the rest in batches."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import torch

from featviz.atlases import batch_renderer, metadata, plan
from featviz.atlases.batch_renderer import AtlasJob, Row
from featviz.atlases.image_ratings import find_judges, rate
from featviz.atlases.local_workers import Batch, inline, processes
from featviz.atlases.ray_cluster import on_ray
from featviz.atlases.reader import Atlas
from featviz.atlases.settings import AtlasKeywords, AtlasSettings
from featviz.atlases.store import Store
from featviz.atlases.tensorboard import ContactSheetWriter
from featviz.atlases.unit_tables import observe
from featviz.bars import tqdm
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.io.dataset import Dataset, ImageDataset
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.optim.batching import optimized_together
from featviz.optim.callbacks import Callback, Step
from featviz.optim.settings import Settings
from featviz.options import split, takes
from featviz.types import Unpack
from featviz.validation import positive_int


@takes(AtlasSettings, Settings)
def atlas(
    model: Model | str,
    layers: Sequence[str] | str,
    *,
    out: str | Path,
    images: Dataset | None = None,
    settings: Settings | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    on_stored: Sequence[Callable[[list[Row]], Any]] = (),
    progress: bool | None = None,
    **options: Unpack[AtlasKeywords],
) -> Atlas:
    """Render every unit of some layers into a folder, or resume an earlier run.

    Images that are stored already are not rendered again. If a run ends early, by Ctrl-C or
    otherwise, only the images in progress are lost.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`, or the name of a network.
    layers
        Layer names, or patterns such as ``_blocks.*`` (with ``*`` and ``?``).
    out
        The folder, or any URL that fsspec supports (``s3://bucket/atlas``).
    images
        A dataset as for :func:`featviz.examples`, to find the images that activate each unit most
        and least.
    settings
        How the images are optimized; keyword arguments override its fields.
    batch_size
        Images per shard, which are rendered together: 16 on a CPU, 128 elsewhere.
    device
        Device to compute on: ``None`` is the model's own, ``auto`` the best one available.
    callbacks
        :class:`featviz.callbacks.Callback` objects or functions of a step, for images rendered in
        this process.
    on_stored
        Functions that are called with the rows of each shard after it is stored.
    progress
        Show a progress bar; None, the default: in interactive sessions and notebooks.
    **options
        The fields of :class:`AtlasSettings` and :class:`featviz.Settings`.

    Returns
    -------
    Atlas
        After Ctrl-C, ``interrupted`` is set.

    Raises
    ------
    FeatvizError
        For invalid input, before the first image; for a folder made with other settings; for a
        full disk. Stored images are kept.
    """
    model = as_model(model, "atlas")
    if not isinstance(out, (str, Path)) or not str(out):
        raise FeatvizError(f"out must be a folder or URL, not {out!r}")
    atlas_options, render_options = split(options, AtlasSettings, Settings)
    config = AtlasSettings.of(None, atlas_options)
    if callbacks and (config.workers or config.ray):
        raise FeatvizError("callbacks need the steps of this process: omit workers and ray")
    if batch_size is not None:
        batch_size = positive_int("batch_size", batch_size)
    job = AtlasJob(
        model, Settings.of(settings, render_options), config.encoding, config.objective, device
    )
    batch_renderer.check(job)
    digest, record = job.identity
    planned = plan.enumerate_images(
        model,
        layers,
        units=config.units,
        signs=config.signs,
        seeds=config.seeds,
        objective=config.objective,
    )
    for goal in plan.goals(planned).values():
        job.plan.check(job.network, goal, 1)
    if images is not None:
        ImageDataset(images)  # reports an invalid dataset now rather than hours later
    judges = {} if config.judges is None else find_judges(job, config.judges, images)
    store, stored_keys = _open(out, config, digest, record)
    metadata.update(store, model, {p.layer for p in planned}, digest, record)
    shard_size = optimized_together(job.network.device, batch_size)
    missing = [
        remaining
        for batch in plan.batches(planned, shard_size)
        for remaining in [
            tuple(p for p in batch if (p.objective, p.seed, digest) not in stored_keys)
        ]
        if remaining
    ]
    interrupted = False
    with contextlib.ExitStack() as stack:
        observers = list(on_stored)
        if config.tensorboard is not None:
            writer = ContactSheetWriter(config.tensorboard, store.records())
            observers.append(stack.enter_context(writer))
        bar = stack.enter_context(
            tqdm(
                total=len(planned),
                initial=len(planned) - sum(map(len, missing)),
                unit=" images",
                progress=progress,
            )
        )
        try:
            shards = _render(job, missing, config, callbacks)
            for rows in stack.enter_context(contextlib.closing(shards)):
                store.add(rows)
                bar.update(len(rows))
                for observer in observers:
                    observer(rows)
            bar.close()
            interrupted = observe(store, job, planned, images, progress=progress)
            if judges and not interrupted:
                rate(store, job, planned, images, judges, progress=progress)
        except KeyboardInterrupt:
            interrupted = True
    store.reindex(store.records())
    result = Atlas(out, digest)
    result.interrupted = interrupted
    return result


def _open(
    out: str | Path, config: AtlasSettings, digest: str, record: dict[str, Any]
) -> tuple[Store, set[Any]]:
    """Open and repair the folder; return its store, with the keys of the stored images.

    Raises
    ------
    FeatvizError
        If its images were made with other settings, or from another network.
    """
    store = Store(out)
    metadata.check_format(store)
    store.files.sweep()
    # A local folder is read completely, so that damage is found while it can be repaired.
    records = store.records(verify=store.files.local)
    metadata.agree(store, records, digest, record, config.beside)
    for shard, reason in store.damaged.items():
        new_name = store.files.set_aside(shard)
        warnings.warn(f"{reason}; it was renamed to {new_name!r}", FeatvizWarning, stacklevel=4)
    if store.dedupe(records):
        records = store.records()
    return store, store.keys(records)


def _render(
    job: AtlasJob,
    missing: Sequence[Batch],
    config: AtlasSettings,
    callbacks: Sequence[Callback | Callable[[Step], Any]],
) -> Generator[list[Row], None, None]:
    """Yield the rows of the batches as they are rendered, here or by workers."""
    if not missing:
        return
    if config.ray is not None:
        yield from on_ray(job, missing, config.ray, config.workers or None)
    elif config.workers:
        yield from processes(job, missing, config.workers)
    else:
        yield from inline(job, missing, callbacks)
