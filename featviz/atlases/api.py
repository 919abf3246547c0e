"""Make an atlas: plan, subtract what is stored, make the rest batch by batch."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from featviz.atlases import metadata, painter, plan
from featviz.atlases.local_workers import Batch, inline, processes
from featviz.atlases.painter import Brief, Row
from featviz.atlases.ray_cluster import on_ray
from featviz.atlases.reader import Atlas
from featviz.atlases.settings import AtlasKeywords, AtlasSettings
from featviz.atlases.store import Store
from featviz.atlases.tensorboard import ContactSheetWriter
from featviz.atlases.unit_tables import observe
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.io.dataset import Dataset, ImageDataset
from featviz.networks.model import Model
from featviz.optim.batching import optimized_together
from featviz.optim.callbacks import Callback, Step
from featviz.optim.settings import Settings
from featviz.options import split, takes
from featviz.types import Unpack
from featviz.validation import positive_int


@takes(AtlasSettings, Settings)
def atlas(
    model: Model,
    layers: Sequence[str] | str,
    *,
    out: str | Path,
    images: Dataset | None = None,
    settings: Settings | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    on_stored: Sequence[Callable[[list[Row]], Any]] = (),
    progress: bool = False,
    **options: Unpack[AtlasKeywords],
) -> Atlas:
    """Render every unit of some layers into a folder; continue where an earlier run ended.

    What is stored already is not made again. Ctrl-C, and whatever else ends a run, loses the
    images that were being made and no others.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`.
    layers
        Names, or patterns such as ``_blocks.*`` (``*`` and ``?``).
    out
        The folder, or a URL that fsspec knows (``s3://bucket/atlas``).
    images
        A dataset, as :func:`featviz.examples` takes it: each unit gets the images that excite it
        most and least.
    settings
        How the images are optimized; keywords replace its fields.
    batch_size
        Images of a shard, which are made together: 16, on a GPU 128.
    device
        Where to compute: ``None`` is where the model is, ``auto`` the best there is.
    callbacks
        :class:`featviz.callbacks.Callback` objects or functions of a step, for images that this
        process makes.
    on_stored
        Functions of the rows that have just been stored.
    progress
        Show a progress bar.
    **options
        The fields of :class:`AtlasSettings` and :class:`featviz.Settings`.

    Returns
    -------
    Atlas
        With ``interrupted`` set after Ctrl-C.

    Raises
    ------
    FeatvizError
        For input that cannot work, before the first image; for a folder made with other settings;
        for a full disk. What is stored stays.
    """
    if not isinstance(model, Model):
        raise FeatvizError("atlas takes a featviz.Model: wrap the network, fv.Model(net, mean=…)")
    own, rendering = split(options, AtlasSettings, Settings)
    asked = AtlasSettings.of(None, own)
    asked.check()
    if callbacks and (asked.workers or asked.ray):
        raise FeatvizError("callbacks see the steps of this process: leave workers and ray out")
    if batch_size is not None:
        batch_size = positive_int("batch_size", batch_size)
    brief = Brief(model, Settings.of(settings, rendering), asked.encoding, asked.objective, device)
    painter.check(brief)
    digest, record = brief.identity
    pictures = plan.enumerate_pictures(
        model,
        layers,
        units=asked.units,
        signs=asked.signs,
        seeds=asked.seeds,
        objective=asked.objective,
    )
    for goal in plan.goals(pictures).values():
        brief.plan.check(brief.home, goal, 1)
    if images is not None:
        ImageDataset(images)  # says what is wrong with it now, and not after hours
    store, stored = _open(out, asked, digest, record)
    metadata.update(store, model, {p.layer for p in pictures}, digest, record)
    together = optimized_together(brief.home.device, batch_size)
    missing = [
        rest
        for batch in plan.batches(pictures, together)
        for rest in [tuple(p for p in batch if (p.objective, p.seed, digest) not in stored)]
        if rest
    ]
    interrupted = False
    with contextlib.ExitStack() as closing:
        watchers = list(on_stored)
        if asked.tensorboard is not None:
            writer = ContactSheetWriter(asked.tensorboard, store.records())
            watchers.append(closing.enter_context(writer))
        bar = closing.enter_context(
            tqdm(
                total=len(pictures),
                initial=len(pictures) - sum(map(len, missing)),
                unit=" images",
                disable=not (progress and sys.stderr.isatty()),
            )
        )
        try:
            made = _make(brief, missing, asked, callbacks)
            for rows in closing.enter_context(contextlib.closing(made)):
                store.add(rows)
                bar.update(len(rows))
                for watcher in watchers:
                    watcher(rows)
            bar.close()
            interrupted = observe(store, brief, pictures, images, progress=progress)
        except KeyboardInterrupt:
            interrupted = True
    store.reindex(store.records())
    result = Atlas(out, digest)
    result.interrupted = interrupted
    return result


def _open(
    out: str | Path, asked: AtlasSettings, digest: str, record: dict[str, Any]
) -> tuple[Store, set[Any]]:
    """Open the folder, mend what another run left, and return it with the keys of its pictures.

    Raises
    ------
    FeatvizError
        If its images were made with other settings, or of another network.
    """
    store = Store(out)
    metadata.check_format(store)
    store.files.sweep()
    # A folder is read to the last byte, so that damage is found while it can be mended.
    records = store.records(verify=store.files.local)
    metadata.agree(store, records, digest, record, asked.beside)
    for shard, reason in store.damaged.items():
        aside = store.files.set_aside(shard)
        warnings.warn(f"{reason}; it is now {aside!r}", FeatvizWarning, stacklevel=4)
    if store.dedupe(records):
        records = store.records()
    return store, store.keys(records)


def _make(
    brief: Brief,
    missing: Sequence[Batch],
    asked: AtlasSettings,
    callbacks: Sequence[Callback | Callable[[Step], Any]],
) -> Generator[list[Row], None, None]:
    """Yield the rows of the batches as they are made, here or by workers."""
    if not missing:
        return
    if asked.ray is not None:
        yield from on_ray(brief, missing, asked.ray, asked.workers or None)
    elif asked.workers:
        yield from processes(brief, missing, asked.workers)
    else:
        yield from inline(brief, missing, callbacks)
