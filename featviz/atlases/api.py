"""Make an atlas: plan, subtract what is stored, do the rest batch by batch."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from featviz.atlases import metadata as about
from featviz.atlases import painter as paint
from featviz.atlases import plan
from featviz.atlases.local_workers import Batch, inline, processes
from featviz.atlases.painter import Brief, Row
from featviz.atlases.plan import Template, Units
from featviz.atlases.ray_cluster import on_ray
from featviz.atlases.reader import Atlas
from featviz.atlases.store import Store
from featviz.atlases.tensorboard import Board
from featviz.atlases.unit_tables import observe
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.io.dataset import Source
from featviz.networks.model import Model
from featviz.param import Param
from featviz.transforms import Transform
from featviz.types import Precision, Size
from featviz.validation import positive_int


def atlas(
    model: Model,
    layers: Sequence[str] | str,
    *,
    out: str | Path,
    units: Units = None,
    signs: str | Sequence[str] = "+-",
    seeds: int | Iterable[int] = 0,
    objective: Template = None,
    param: Param | str | None = None,
    transforms: Sequence[Transform] | str | None = None,
    quality: str = "standard",
    steps: int | None = None,
    size: Size | None = None,
    lr: float | None = None,
    examples: Any = None,
    workers: int = 0,
    ray: str | None = None,
    batch_size: int | None = None,
    encoding: str = "png",
    beside: bool = False,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    tensorboard: str | Path | None = None,
    callbacks: Sequence[Callable[[list[Row]], Any]] = (),
    progress: bool = False,
) -> Atlas:
    """Render every unit of some layers into a folder; go on where an earlier run ended.

    What is stored already is not made again. Ctrl-C, and whatever else ends a run, loses the
    pictures that were being made and no others.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`.
    layers
        Names, or patterns such as ``_blocks.*`` (``*`` and ``?``).
    out
        The folder, or a URL that fsspec knows (``s3://bucket/atlas``).
    units
        All of each layer by default; ``"0:32"``, ``"3,7"``, or numbers.
    signs
        ``"+-"``: what raises and what lowers each unit; or one of them.
    seeds
        One picture a seed.
    objective
        What a picture shows: a text with ``{layer}`` and ``{unit}``, or a function of both that
        returns an objective; ``channel:{layer}:{unit}`` by default.
    param, transforms, quality, steps, size, lr, device, precision
        As in :func:`featviz.render`.
    examples
        A data set, as :func:`featviz.examples` takes it: each unit gets the images that it likes
        most and least.
    workers
        Local processes that share the cores, and the GPUs in turn; 0 for this process alone.
    ray
        The address of a Ray cluster, whose workers then do it; ``auto``, ``host:6379``.
    batch_size
        Pictures of a shard, which are made together: 16, on a GPU 128.
    encoding
        ``png``, or ``webp``: a fifth of the size, and not quite the same.
    beside
        Add to a folder whose pictures were made otherwise, under another settings hash.
    tensorboard
        A folder for contact sheets, layer by layer, as the run goes on.
    callbacks
        Functions of the rows that have just been stored.
    progress
        Show a progress bar on a terminal.

    Returns
    -------
    Atlas
        With ``interrupted`` set after Ctrl-C.

    Raises
    ------
    FeatvizError
        For input that cannot work, before the first picture; for a folder made with other settings;
        for a full disk. What is stored stays.
    """
    if not isinstance(model, Model):
        raise FeatvizError("atlas takes a featviz.Model: wrap the network, fv.Model(net, mean=…)")
    if not isinstance(workers, int) or workers < 0:
        raise FeatvizError(f"workers must be a whole number and not negative, not {workers!r}")
    if batch_size is not None:
        batch_size = positive_int("batch_size", batch_size)
    given: dict[str, Any] = {
        "param": param,
        "transforms": transforms,
        "quality": quality,
        "steps": steps,
        "size": size,
        "lr": lr,
        "device": device,
        "precision": precision,
    }
    brief = Brief(model, given, encoding, objective)
    paint.check(brief)
    digest, settings = brief.identity
    pictures = plan.enumerate_pictures(
        model, layers, units=units, signs=signs, seeds=seeds, objective=objective
    )
    for goal in plan.goals(pictures).values():
        brief.job.check(goal, 1)
    if examples is not None:
        Source(examples)  # says what is wrong with it now, and not after hours
    store = Store(out)
    about.check_format(store)
    store.files.sweep()
    # A folder is read to the last byte, so that damage is found while it can be mended.
    records = store.records(verify=store.files.local)
    about.agree(store, records, digest, settings, beside)
    for shard, reason in store.damaged.items():
        warnings.warn(
            f"{reason}; it is now {store.files.set_aside(shard)!r}", FeatvizWarning, stacklevel=2
        )
    if store.dedupe(records):
        records = store.records()
    stored = store.keys(records)
    about.update(store, model, {p.layer for p in pictures}, digest, settings)
    left = [
        rest
        for batch in plan.batches(pictures, batch_size or brief.job.batch_size)
        for rest in [tuple(p for p in batch if (p.objective, p.seed, digest) not in stored)]
        if rest
    ]
    interrupted = False
    with contextlib.ExitStack() as closing:
        watchers = list(callbacks)
        if tensorboard is not None:
            watchers.append(closing.enter_context(Board(tensorboard, records)))
        bar = closing.enter_context(
            tqdm(
                total=len(pictures),
                initial=len(pictures) - sum(map(len, left)),
                unit=" pictures",
                disable=not (progress and sys.stderr.isatty()),
            )
        )
        try:
            for rows in closing.enter_context(contextlib.closing(_run(brief, left, workers, ray))):
                store.add(rows)
                bar.update(len(rows))
                for watcher in watchers:
                    watcher(rows)
            bar.close()
            interrupted = observe(store, brief, pictures, examples, progress=progress)
        except KeyboardInterrupt:
            interrupted = True
    store.reindex(store.records())
    found = Atlas(out, digest)
    found.interrupted = interrupted
    return found


def _run(
    brief: Brief, left: Sequence[Batch], workers: int, ray: str | None
) -> Generator[list[Row], None, None]:
    if not left:
        return
    if ray is not None:
        yield from on_ray(brief, left, ray, workers or None)
    else:
        yield from processes(brief, left, workers) if workers else inline(brief, left)
