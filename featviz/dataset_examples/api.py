"""Find the images of a dataset that activate units most, in one pass over any number of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz._version import __version__
from featviz.dataset_examples.relevance_table import DEFAULT_RULE
from featviz.dataset_examples.result import Examples
from featviz.dataset_examples.settings import ExamplesKeywords, ExamplesSettings
from featviz.dataset_examples.tally import Tally
from featviz.errors import FeatvizError
from featviz.io.dataset import Dataset, ImageDataset
from featviz.io.dataset_batches import read_batches, warn_of_skipped
from featviz.networks import devices
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives.text import objective as as_objective
from featviz.objectives.text import objectives as as_objectives
from featviz.optim.batching import evaluated_together
from featviz.optim.callbacks import Callback, Run, Step, as_callback
from featviz.options import takes
from featviz.seeds import expand, generator
from featviz.types import Unpack


@takes(ExamplesSettings)
def examples(
    model: Model | str,
    images: Dataset,
    objective: Objective | str | Sequence[Objective | str],
    *,
    settings: ExamplesSettings | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool | None = None,
    **options: Unpack[ExamplesKeywords],
) -> Examples:
    """Return the images with the highest and the lowest values of each objective.

    With ``by="relevance"`` the objectives are channels and neurons, and their values how much they
    contribute to ``relevant_for``, by default to each image's predicted class. [Achtibat2023]_

    The dataset is read once, and memory does not grow with the number of images. All objectives,
    even thousands, share one truncated forward pass. The values are those of
    ``objective(model, image)`` on images that are centre-cropped to the aspect ratio of
    ``model.size`` and resized (bilinear, antialiased).

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`, or the name of a network.
    images
        A folder of images (including subfolders), a file, or anything that yields tensors
        (C, *size) in [0, 1], Pillow images, paths, tuples that start with one of these (like
        ``torch.utils.data`` datasets) or rows with a column of them (like ``datasets``).
    objective
        One objective or a list: ``[fv.channel("_blocks.10", i) for i in range(112)]``.
    settings
        What to measure and keep; keyword arguments override its fields.
    seed
        Seed of the random sample of images.
    batch_size
        Images per forward pass: 4 on a CPU, 32 elsewhere.
    device
        Device to compute on: ``None`` is the model's own, ``auto`` the best one available.
    callbacks
        :class:`featviz.callbacks.Callback` objects or functions of a step: one for each batch of
        images, with ``scores`` (B, units).
    progress
        Show a progress bar; None, the default: in interactive sessions and notebooks.
    **options
        The fields of :class:`ExamplesSettings`.

    Returns
    -------

    Examples
        Image files that cannot be read are skipped, and a warning names them. After Ctrl-C the
        result is partial, with ``interrupted`` set.

    Raises
    ------
    FeatvizError
        If there is no image, or an objective does not fit the network or depends on a whole batch.
    """
    model = as_model(model, "examples")
    config = ExamplesSettings.of(settings, options)
    config.check()
    (seed,) = expand(seed, 1)
    goals = as_objectives(objective)
    if not goals:
        raise FeatvizError("give at least one objective, such as class:285")
    network = model.on(devices.resolve(device, model.device))
    chunk_size = evaluated_together(network.device, batch_size)
    dataset = ImageDataset(images, model.crop)
    tally = Tally(network, goals, dataset, config, generator(seed, "sampled images"), chunk_size)
    watchers = [as_callback(callback) for callback in callbacks]
    steps = math.ceil(dataset.count / chunk_size) if dataset.count is not None else 0
    run = Run([str(goal) for goal in goals], [seed], steps)
    interrupted = False
    try:
        with network.session(), torch.no_grad():
            for watcher in watchers:
                watcher.on_start(run)
            batches = read_batches(
                dataset, network.channels, network.size, chunk_size,
                skipped=tally.skipped, progress=progress,
            )  # fmt: skip
            for index, batch in enumerate(batches):
                step = Step(index, run)
                step.images, step.scores = tally.update(batch)
                if any([watcher.on_step(step) for watcher in watchers]):  # noqa: C419 - all of them
                    break
    except KeyboardInterrupt:
        if not tally.count:
            raise
        interrupted = True
    finally:
        for watcher in watchers:
            watcher.close()
    warn_of_skipped(tally.skipped, tally.count)
    if not tally.count:
        raise FeatvizError("there are no images in the dataset")
    record = {
        "version": __version__,
        "verb": "examples",
        "model": model.name,
        "k": config.k,
        "by": config.by,
        **_relevant(config),
        "fraction": config.fraction,
        "precision": config.precision,
    }
    return tally.result(record, interrupted)


def _relevant(config: ExamplesSettings) -> dict[str, Any]:
    """Return what relevance is measured for, and by which rules, as JSON can hold it."""
    if config.by != "relevance":
        return {}
    goal = config.relevant_for
    text = "predicted class" if goal is None else str(as_objective(goal))
    return {"relevant_for": text, "rule": config.rule or DEFAULT_RULE}
