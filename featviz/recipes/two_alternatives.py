"""Machine interpretability: whether pictures or examples tell which image excites a unit.

A two-alternative forced choice without people [Zimmermann2024]_: of two images that were not shown
before, which one excites the unit? The judge is another network, which compares them in its own
embedding with images that explain the unit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from featviz.dataset_examples.api import examples
from featviz.dataset_examples.forced_choice import ALPHA, embed, fitted, margins
from featviz.dataset_examples.result import Examples
from featviz.errors import FeatvizError
from featviz.io.dataset import Dataset, ImageDataset
from featviz.io.inputs import read_image
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives.text import objectives as as_objectives
from featviz.optim.batching import evaluated_together
from featviz.process_state import shielded
from featviz.types import Tensor
from featviz.validation import positive_int, real


@dataclasses.dataclass(frozen=True)
class Interpretability:
    """How well explanations tell exciting images from others; one row for each objective.

    Attributes
    ----------
    objectives
        Their texts.
    scores
        (units,): the machine interpretability score, the mean probability of the right answer
        under a softmax of the similarities; 0.5 is chance.
    accuracy
        (units,): the fraction of right answers.
    errors
        (units,): the standard error of the accuracy, from the number of tasks.
    tasks
        Tasks for each unit.
    """

    objectives: list[str]
    scores: Tensor
    accuracy: Tensor
    errors: Tensor
    tasks: int


@shielded
def machine_interpretability(
    model: Model | str,
    images: Dataset,
    objective: Objective | str | Sequence[Objective | str],
    *,
    judge: Model | str,
    judge_layer: str | None = None,
    pictures: Tensor | None = None,
    negative: Tensor | None = None,
    k: int = 9,
    tasks: int = 10,
    alpha: float = ALPHA,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Interpretability:
    """Return whether a unit's examples, or its pictures, tell which image excites it.

    The ``k + tasks`` images with the highest and with the lowest values are taken. In each task,
    one of either, at evenly spaced ranks, is set aside and has to be told apart. The others of each
    side explain the unit; or ``pictures`` do, which were optimized.

    A choice compares s(q⁺, E⁺) - s(q⁺, E⁻) with s(q⁻, E⁺) - s(q⁻, E⁻), s the mean cosine in the
    judge's embedding, less the mean of the unit's highest and lowest images. [Zimmermann2024]_ use
    DreamSim as the judge; any network that had no part in the unit does.

    Parameters
    ----------
    model
        The network of the units.
    images
        A folder or dataset that can be read twice, with at least 2 (k + tasks) images.
    objective
        One or several units.
    judge
        An independent network, or its name.
    judge_layer
        Its layer, averaged over positions; by default the last one with positions.
    pictures
        (units, P, C, H, W) in [0, 1]: explain by these instead of by examples.
    negative
        (units, P, C, H, W): what lowers the units; otherwise only E⁺ is compared with.
    k, tasks, alpha
        Images that explain at least, tasks, and the factor of the softmax.
    batch_size, progress
        As in :func:`featviz.examples`.

    Raises
    ------
    FeatvizError
        If there are too few images, they cannot be read twice, or the pictures do not fit.
    """
    model, jury = as_model(model, "machine_interpretability"), as_model(judge, "judge")
    for name, value in (("k", k), ("tasks", tasks)):
        positive_int(name, value)
    alpha = real("alpha", alpha, 0, 1e6, above=True)
    goals = as_objectives(objective)
    dataset = ImageDataset(images, jury.crop)
    if not dataset.repeatable:
        raise FeatvizError("machine_interpretability reads images twice: give a folder or a list")
    pictures = pictures_of(model, pictures, len(goals), "pictures")
    negative = pictures_of(model, negative, len(goals), "negative")
    if negative is not None and pictures is None:
        raise FeatvizError("negative pictures need pictures=, too")
    ranked, ranks = ranked_sides(
        model, images, goals, k, tasks, keep=False, batch_size=batch_size, progress=progress
    )
    sides = torch.stack([ranked.top.indices, ranked.bottom.indices], 1)  # (units, 2, most)
    needed, places = sides.unique(return_inverse=True)
    size = evaluated_together(jury.device, batch_size)
    found = [
        embed(jury, torch.stack([_read(dataset, int(i), jury) for i in some]), judge_layer)
        for some in needed.split(size)
    ]
    photos = torch.cat(found)
    rows = []
    for unit in range(len(goals)):
        shown = [None if given is None else given[unit] for given in (pictures, negative)]
        drawn = [None if s is None else fitted(jury, s, judge_layer, size) for s in shown]
        sides_of_unit = photos[places[unit]]
        centre = sides_of_unit.mean((0, 1))
        rows.append(_margins(F.normalize(sides_of_unit - centre, dim=-1), ranks, centre, drawn))
    found_margins = torch.stack(rows)
    right = (found_margins > 0).float() + 0.5 * (found_margins == 0).float()
    accuracy = right.mean(1)
    errors = (accuracy * (1 - accuracy) / tasks).sqrt()
    scores = (alpha * found_margins).sigmoid().mean(1)
    return Interpretability([str(g) for g in goals], scores, accuracy, errors, tasks)


def ranked_sides(
    model: Model, images: Dataset, goals: list[Objective], k: int, tasks: int, **options: Any
) -> tuple[Examples, list[int]]:
    """Return the k + tasks highest and lowest images, and the ranks that are set aside.

    Raises
    ------
    FeatvizError
        If there are too few images.
    """
    most = k + tasks
    ranked = examples(model, images, goals, k=most, **options)
    if ranked.count < 2 * most:
        raise FeatvizError(
            f"{ranked.count} images: {tasks} tasks with {k} examples of each side need {2 * most}"
        )
    return ranked, torch.linspace(0, most - 1, tasks).round().long().tolist()


def _margins(
    sides: Tensor, ranks: Sequence[int], centre: Tensor, drawn: Sequence[Tensor | None]
) -> Tensor:
    """Return by how much the right answer is nearer in each task, (tasks,).

    ``sides`` (2, most, D) are the unit embeddings of the highest and lowest images.
    """
    found = []
    pictures, negative = (
        None if d is None else F.normalize(d - centre, dim=-1).mean(0) for d in drawn
    )
    for rank in ranks:
        queries = sides[:, rank]
        rest = torch.cat([sides[:, :rank], sides[:, rank + 1 :]], 1)
        up, down = rest.mean(1)
        if pictures is not None:
            up, down = pictures, torch.zeros_like(up) if negative is None else negative
        found.append(margins(queries[:1], queries[1:], up, down)[0, 0])
    return torch.stack(found)


def pictures_of(model: Model, pictures: Any, count: int, what: str) -> Tensor | None:
    """Return pictures (count, P, C, *size) in [0, 1], checked; None as it is."""
    if pictures is None:
        return None
    shape, axes = tuple(getattr(pictures, "shape", ())), len(model.size)
    if len(shape) != axes + 3 or shape[0] != count:
        raise FeatvizError(f"{what} must have shape ({count}, P, C, H, W), not {shape}")
    return torch.stack([read_image(some, model.channels, what, axes) for some in pictures])


def _read(dataset: ImageDataset, index: int, jury: Model) -> Tensor:
    return dataset[index].image(jury.channels, jury.size)
