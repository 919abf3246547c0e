"""Compare the path of an image through the network with that of natural images.

[Geirhos2024]_
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from featviz.checks.verdicts import Criterion, judge, not_measured
from featviz.dataset_examples.forced_choice import FEWEST, OTHERS
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives.scene import Target
from featviz.optim.collecting import collect
from featviz.types import LayerInfo, Tensor

#: Images per forward pass.
TOGETHER = 2
#: Most layers to compare, spread evenly over the depth; fewest units to rank.
MOST, LEAST = 64, 8
#: By how many standard errors the top-activating images must be more alike than other images.
CLEAR = 2.0
#: The share of the layers in which they must be.
ENOUGH = 0.25
#: How often a single top image must score above a single other image.
TELLING = 0.9


def layers(model: Model, goal: Objective) -> list[LayerInfo]:
    """Return the layers up to the deepest that the objective reads, at most 64, evenly spread."""
    table = model.layers()
    read = [table.position(name) for name in goal.needs(Target(model, model.size, 1))]
    candidates = [
        i
        for i in table[: max(read, default=-1) + 1]
        if i.units >= LEAST and "#" not in i.name and i.batched
    ]
    if len(candidates) <= MOST:
        return candidates
    return [candidates[round(k * (len(candidates) - 1) / (MOST - 1))] for k in range(MOST)]


def profiles(model: Model, images: Tensor, infos: Sequence[LayerInfo]) -> dict[str, Tensor]:
    """Return the mean of every unit over its positions, (B, units), for each layer.

    Layers whose first axis turns out not to be the batch (windows of an image) are left out.
    """
    layers = {info.name: info for info in infos}
    without_batch: set[str] = set()

    def mean(name: str, activation: Tensor) -> Tensor:
        info = layers[name]
        units = activation.movedim(info.axis, 1)
        if units.shape[1] != info.units:
            without_batch.add(name)
            return activation.new_zeros(0, info.units)
        return units.reshape(len(units), info.units, -1).float().mean(2)

    means = collect(model, images, list(layers), mean, batch_size=TOGETHER)
    return {n: r for n, r in means.items() if n not in without_batch and len(r) == len(images)}


def ranks(values: Tensor) -> Tensor:
    """Return the ranks (…, n) along the last axis, from 0; equal values share their mean rank.

    >>> ranks(torch.tensor([0.5, 0.1, 0.5, 2.0]))
    tensor([1.5000, 0.0000, 1.5000, 3.0000], dtype=torch.float64)
    """
    values = values.contiguous()
    ordered = values.sort(-1).values
    first = torch.searchsorted(ordered, values)
    last = torch.searchsorted(ordered, values, right=True)
    return (first + last - 1).double() / 2


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Return Spearman's rank correlations (A, B) of rows (A, n) and (B, n); constants give NaN."""
    x, y = (r - r.mean(-1, keepdim=True) for r in (ranks(a), ranks(b)))
    x, y = (r / r.norm(dim=-1, keepdim=True) for r in (x, y))
    return x @ y.T


@dataclasses.dataclass(frozen=True)
class LayerSimilarity:
    """Rank correlations in one layer between an image, the top images of a unit and other images.

    ``picture`` is the mean correlation of the image with the top images, ``same`` that of the top
    images with one another, ``other`` that of the top images with other images. ``clear`` indicates
    whether ``same`` is significantly above ``other``. ``uncentred`` has the same three numbers for
    activations that are not standardized, and ``singly`` the mean correlation of each top image
    with the rest of them, and of each other image with all of them.
    """

    layer: str
    picture: float
    same: float
    other: float
    clear: bool
    uncentred: tuple[float, float, float]
    singly: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())


def layer_similarity(layer: str, picture: Tensor, top: Tensor, others: Tensor) -> LayerSimilarity:
    """Compare an image (units,) with top images (k, units) and other images (m, units).

    Each unit is standardized by its mean and standard deviation over the other images.
    """
    mean, std = others.mean(0), others.std(0)
    std = torch.where(std > 0, std, torch.ones(()))
    own, same, other, clear, *singly = _compare(*((v - mean) / std for v in (picture, top, others)))
    uncentred = _compare(picture, top, others)[:3]
    return LayerSimilarity(layer, own, same, other, clear, uncentred, (singly[0], singly[1]))


def _compare(
    picture: Tensor, top: Tensor, others: Tensor
) -> tuple[float, float, float, bool, tuple[float, ...], tuple[float, ...]]:
    count = len(top)
    among_top = spearman(top, top)
    sums = among_top.sum(1) - among_top.diagonal()  # of each with the rest
    with_others = spearman(top, others)
    mean_with_others = with_others.mean(1)
    same, other = sums.sum() / (count * (count - 1)), mean_with_others.mean()
    # Jackknife, since every pair counts in two sums: the gap without each image in turn.
    gaps = (sums.sum() - 2 * sums) / ((count - 1) * (count - 2))
    gaps = gaps - (mean_with_others.sum() - mean_with_others) / (count - 1)
    standard_error = ((count - 1) / count * (gaps - gaps.mean()).square().sum()).sqrt()
    own = float(spearman(picture[None], top).mean())
    singly = (sums / (count - 1)).tolist(), with_others.mean(0).tolist()
    clear = bool(same - other > CLEAR * standard_error)
    return own, float(same), float(other), clear, tuple(singly[0]), tuple(singly[1])


def mean_score(similarities: Sequence[LayerSimilarity]) -> float:
    """Return how similar an image is to the top images: 1 as they are, 0 as other images are.

    It is the mean over the layers that separate the two groups, weighted by how far; or NaN.
    """
    return _ratio([(s.picture, s.same, s.other) for s in similarities if s.clear])


def _ratio(rows: Sequence[tuple[float, float, float]]) -> float:
    gap = sum(same - other for _, same, other in rows)
    return sum(near - other for near, _, other in rows) / gap if gap > 0 else float("nan")


def power(similarities: Sequence[LayerSimilarity]) -> float:
    """Return how often a single top image scores above a single other image, by the same mean.

    1 if the score separates all of them, 0.5 at chance; NaN without clear layers. The scale, which
    is the same for all, is left out.
    """
    clear = [s for s in similarities if s.clear]
    if not clear:
        return float("nan")
    top, others = (torch.tensor([s.singly[i] for s in clear]).double().sum(0) for i in (0, 1))
    gaps = top[:, None] - others
    return float(((gaps > 0).double() + (gaps == 0).double() / 2).mean())


def path_criterion(similarities: Sequence[LayerSimilarity], top: int, others: int) -> Criterion:
    """Judge the path of an image by its mean score over the layers that separate the groups."""
    clear = [s for s in similarities if s.clear]
    rows: list[dict[str, Any]] = [dataclasses.asdict(s) for s in similarities]
    for row in rows:
        del row["singly"]
    uncentred = _ratio([s.uncentred for s in clear])
    separation = power(similarities)
    figures = {
        "layers": rows, "top": top, "others": others, "uncentred": uncentred, "power": separation,
    }  # fmt: skip
    if top < FEWEST or others < FEWEST:
        why = f"it takes {FEWEST} top-activating images and {FEWEST} others"
        return not_measured("path", f"too few images: {why}", **figures)
    if others < OTHERS * top:
        why = f"the highest {top} of {top + others} are no selection"
        remedy = f"give at least {(OTHERS + 1) * top}, or a smaller k"
        return not_measured("path", f"too few images: {why}; {remedy}", **figures)
    where = f"in {len(clear)} of {len(similarities)} layers"
    if not clear or len(clear) < ENOUGH * len(similarities):
        why = f"only {where} are the {top} top-activating images more alike than others"
        return not_measured("path", why, **figures)
    if not separation >= TELLING:
        why = (
            "the path tells a single top-activating image from others in only "
            f"{separation:.0%} of cases"
        )
        return not_measured("path", why, score=mean_score(similarities), **figures)
    why = f"{where}, where 1 is how alike the {top} top-activating images are, and 0 others"
    return judge("path", mean_score(similarities), why, **figures)
