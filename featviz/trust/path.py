"""Tell whether a picture takes the way through the network that natural images take.

[Geirhos2024]_
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from featviz.layers import LayerInfo
from featviz.model import Model
from featviz.objectives import Objective
from featviz.objectives.scene import Target
from featviz.trust.criterion import Criterion, judged, unmeasured
from featviz.types import Tensor

#: Pictures whose activations are held at a time.
TOGETHER = 2
#: Layers that are compared at most, evenly over the depth; units that ranks take at least.
MOST, LEAST = 64, 8
#: Natural images on either side that are needed, and how many random ones are drawn.
FEWEST, DRAWN = 3, 32
#: How many standard errors the exciting images have to be more alike than others are.
CLEAR = 2.0


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
    """Return the mean of every unit over its positions, (B, units), for each layer."""
    found: dict[str, list[Tensor]] = {info.name: [] for info in infos}
    with torch.no_grad():
        for part in pictures.split(TOGETHER):
            made = model.activations(part.to(model.device), list(found))
            for info in infos:
                units = made[info.name].movedim(info.axis, 1).flatten(2)
                found[info.name].append(units.float().mean(2).cpu())
    return {name: torch.cat(rows) for name, rows in found.items()}


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
    """A layer: how alike the exciting images are among themselves and to others, and a picture.

    ``score`` is 1 where the picture is as near to the exciting images as they are to one another,
    0 where it is as near as other images are. ``clear`` says whether the two can be told apart.
    """

    layer: str
    score: float
    picture: float
    same: float
    other: float
    clear: bool


def way(layer: str, picture: Tensor, top: Tensor, others: Tensor) -> Way:
    """Compare a picture (units,) with exciting images (k, units) and others (m, units)."""
    among = spearman(top, top)
    count = len(top)
    same = (among.sum(1) - among.diagonal()) / (count - 1)  # of each with the rest
    cross = spearman(top, others).mean(1)
    gaps = same - cross
    near = float(spearman(picture[None], top).mean())
    gap = float(gaps.mean())
    clear = gap > CLEAR * float(gaps.std()) / count**0.5
    between = float(cross.mean())
    score = (near - between) / gap if gap else float("nan")
    return Way(layer, score, near, float(same.mean()), between, clear)


def mean_score(ways: Sequence[Way]) -> float:
    """Return the mean score over the layers that tell exciting images from others; NaN if none."""
    clear = [w.score for w in ways if w.clear]
    return sum(clear) / len(clear) if clear else float("nan")


def travelled(ways: Sequence[Way], top: int, others: int) -> Criterion:
    """Judge the way of a picture by its mean score over the layers that say something."""
    rows: list[dict[str, Any]] = [dataclasses.asdict(w) for w in ways]
    figures = {"layers": rows, "top": top, "others": others}
    if top < FEWEST or others < FEWEST:
        why = f"it takes {FEWEST} images that excite the unit and {FEWEST} others"
        return unmeasured("path", f"too few images: {why}", **figures)
    clear = sum(w.clear for w in ways)
    if not clear:
        why = "in no layer are the images that excite the unit more alike than others"
        return unmeasured("path", why, **figures)
    why = (
        f"in {clear} of {len(ways)} layers, where 1 is how alike the {top} images that excite the "
        "unit most are, 0 others"
    )
    return judged("path", mean_score(ways), why, **figures)
