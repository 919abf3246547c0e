"""Tell whether an image takes the way through the network that natural images take.

[Geirhos2024]_
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from featviz.checks.verdicts import Criterion, judged, unmeasured
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives.scene import Target
from featviz.optim.collecting import collect
from featviz.types import LayerInfo, Tensor

#: Images whose activations are held at a time.
TOGETHER = 2
#: Layers that are compared at most, evenly over the depth; units that ranks take at least.
MOST, LEAST = 64, 8
#: Natural images on either side that are needed, and how many random ones are drawn.
FEWEST, DRAWN = 3, 32
#: How many standard errors the exciting images have to be more alike than others are.
CLEAR = 2.0
#: In which share of the layers that has to be so.
ENOUGH = 0.25
#: How often one exciting image has to be nearer to the rest of them than one other image is.
TELLING = 0.9


def layers(model: Model, goal: Objective) -> list[LayerInfo]:
    """Return the layers up to the deepest that the objective reads, at most 64, evenly spread."""
    table = model.layers()
    names = [info.name for info in table]
    read = [names.index(name) for name in goal.needs(Target(model, model.size, 1)) if name in names]
    found = [
        i for i in table[: max(read, default=-1) + 1] if i.units >= LEAST and "#" not in i.name
    ]
    if len(found) <= MOST:
        return found
    return [found[round(k * (len(found) - 1) / (MOST - 1))] for k in range(MOST)]


def profiles(model: Model, pictures: Tensor, infos: Sequence[LayerInfo]) -> dict[str, Tensor]:
    """Return the mean of every unit over its positions, (B, units), for each layer.

    Layers whose first axis is not the batch (windows of an image, sequences first) are left out.
    """
    layers = {info.name: info for info in infos}
    foreign: set[str] = set()

    def mean(name: str, activation: Tensor) -> Tensor:
        info = layers[name]
        units = activation.movedim(info.axis, 1)
        if units.shape[1] != info.units:
            foreign.add(name)
            return activation.new_zeros(0, info.units)
        return units.reshape(len(units), info.units, -1).float().mean(2)

    rows = collect(model, pictures, list(layers), mean, batch_size=TOGETHER)
    return {n: r for n, r in rows.items() if n not in foreign and len(r) == len(pictures)}


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
    """Return Spearman's rank correlations (A, B) of rows (A, n) and (B, n); NaN for constants."""
    one, two = (r - r.mean(-1, keepdim=True) for r in (ranks(a), ranks(b)))
    one, two = (r / r.norm(dim=-1, keepdim=True) for r in (one, two))
    return one @ two.T


@dataclasses.dataclass(frozen=True)
class Way:
    """How alike, in one layer, the exciting images are among themselves, to others, to an image.

    ``clear`` says whether the exciting images are more alike than others are, ``uncentred`` has
    the same three numbers of the activations as they are, and ``singly`` how alike each exciting
    image is to the rest of them, and each other image to all of them.
    """

    layer: str
    picture: float
    same: float
    other: float
    clear: bool
    uncentred: tuple[float, float, float]
    singly: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())


def way(layer: str, picture: Tensor, top: Tensor, others: Tensor) -> Way:
    """Compare an image (units,) with exciting images (k, units) and others (m, units).

    Each unit is counted from its mean over the others, in units of its deviation over them.
    """
    middle, spread = others.mean(0), others.std(0)
    spread = torch.where(spread > 0, spread, torch.ones(()))
    near, same, other, clear, *singly = _alike(
        *((v - middle) / spread for v in (picture, top, others))
    )
    return Way(
        layer, near, same, other, clear, _alike(picture, top, others)[:3], (singly[0], singly[1])
    )


def _alike(
    picture: Tensor, top: Tensor, others: Tensor
) -> tuple[float, float, float, bool, tuple[float, ...], tuple[float, ...]]:
    count = len(top)
    among = spearman(top, top)
    rows = among.sum(1) - among.diagonal()  # each with the rest
    pairs = spearman(top, others)
    cross = pairs.mean(1)
    same, other = rows.sum() / (count * (count - 1)), cross.mean()
    # The jackknife, since every pair is in two of the rows: the gap without each image in turn.
    alone = (rows.sum() - 2 * rows) / ((count - 1) * (count - 2))
    alone = alone - (cross.sum() - cross) / (count - 1)
    error = ((count - 1) / count * (alone - alone.mean()).square().sum()).sqrt()
    near = float(spearman(picture[None], top).mean())
    singly = (rows / (count - 1)).tolist(), pairs.mean(0).tolist()
    clear = bool(same - other > CLEAR * error)
    return near, float(same), float(other), clear, tuple(singly[0]), tuple(singly[1])


def mean_score(ways: Sequence[Way]) -> float:
    """Return how near an image is to the exciting images: 1 as these are, 0 as others are.

    It is the mean over the layers that tell the two apart, each weighted by how far; NaN if none.
    """
    return _ratio([(w.picture, w.same, w.other) for w in ways if w.clear])


def _ratio(rows: Sequence[tuple[float, float, float]]) -> float:
    gap = sum(same - other for _, same, other in rows)
    return sum(near - other for near, _, other in rows) / gap if gap > 0 else float("nan")


def power(ways: Sequence[Way]) -> float:
    """Return how often a single exciting image scores above a single other one, by the same mean.

    1 where the score tells every one of them, 0.5 where it tells nothing; NaN without clear layers.
    The scale is left out, which is the same for all.
    """
    clear = [w for w in ways if w.clear]
    if not clear:
        return float("nan")
    near, far = (torch.tensor([w.singly[i] for w in clear]).double().sum(0) for i in (0, 1))
    gaps = near[:, None] - far
    return float(((gaps > 0).double() + (gaps == 0).double() / 2).mean())


def travelled(ways: Sequence[Way], top: int, others: int) -> Criterion:
    """Judge the way of an image by its mean score over the layers that say something."""
    clear = [w for w in ways if w.clear]
    rows: list[dict[str, Any]] = [dataclasses.asdict(w) for w in ways]
    for row in rows:
        del row["singly"]
    uncentred = _ratio([w.uncentred for w in clear])
    able = power(ways)
    figures = {
        "layers": rows, "top": top, "others": others, "uncentred": uncentred, "power": able,
    }  # fmt: skip
    if top < FEWEST or others < FEWEST:
        why = f"it takes {FEWEST} images that excite the unit and {FEWEST} others"
        return unmeasured("path", f"too few images: {why}", **figures)
    where = f"in {len(clear)} of {len(ways)} layers"
    if not clear or len(clear) < ENOUGH * len(ways):
        why = f"only {where} are the {top} images that excite the unit more alike than others"
        return unmeasured("path", why, **figures)
    if not able >= TELLING:
        why = (
            f"the way tells one image that excites the unit from others in {able:.0%} of cases only"
        )
        return unmeasured("path", why, score=mean_score(ways), **figures)
    why = f"{where}, where 1 is how alike the {top} images that excite the unit most are, 0 others"
    return judged("path", mean_score(ways), why, **figures)
