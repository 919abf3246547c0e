"""How much an image excites its unit, and how much of that it keeps when it is disturbed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from featviz.checks.verdicts import Criterion, doubted, judged, unmeasured
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.optim.evaluator import scores
from featviz.rendering.held_out import VIEWS
from featviz.seeds import generator
from featviz.types import Tensor

#: Draws of pixels in random order.
SCRAMBLED = 4


def ground(model: Model, goal: Objective, pictures: Tensor, seeds: Sequence[int]) -> Tensor:
    """Return the mean score (B,) of each image's own pixels in random order.

    It is what its colours alone are worth: a score counts from there, since the zero of a logit
    or of a channel means nothing.
    """
    total = torch.zeros(len(pictures))
    draws = [generator(seed, "scrambled") for seed in seeds]
    count = pictures[0, 0].numel()
    for _ in range(SCRAMBLED):
        mixed = [
            picture.flatten(1)[:, torch.randperm(count, generator=draw)].view_as(picture)
            for picture, draw in zip(pictures, draws, strict=True)
        ]
        total += scores(model, goal, torch.stack(mixed))
    return total / SCRAMBLED


def share(value: float, score: float, base: float) -> float:
    """Return how much of the way from ``base`` to ``score`` a value is; NaN where there is none.

    >>> share(3.0, 5.0, 1.0)
    0.5
    """
    # Rounding makes a way of its own where the order of the pixels does not matter.
    if not score - base > 1e-4 * max(abs(score), abs(base)):
        return float("nan")
    return (value - base) / (score - base)


def below(value: float, quantiles: Tensor) -> float:
    """Return the share of values that lie below, from their quantiles at 0, 1/n, …, 1 (n + 1,).

    >>> below(0.25, torch.tensor([0.0, 0.5, 1.0]))
    0.25
    """
    count = len(quantiles) - 1
    above = int(torch.searchsorted(quantiles, torch.tensor(value, dtype=quantiles.dtype)))
    if above == 0 or above > count:
        return 0.0 if above == 0 else 1.0
    low, high = float(quantiles[above - 1]), float(quantiles[above])
    return (above - 1 + (value - low) / (high - low)) / count


def against(score: float, best: float, quantiles: Tensor, count: int) -> Criterion:
    """Judge a score by those of ``count`` images: 1 is the best image's, 0 their median.

    ``quantiles`` (n + 1,) are those of the images' values at 0, 1/n, …, 1.
    """
    middle = float(quantiles[len(quantiles) // 2])
    quantile = below(score, quantiles)
    figures = {"best": best, "median": middle, "quantile": quantile, "images": count}
    value = share(score, best, middle)
    why = f"where 1 is the best of {count} images and 0 their median"
    if value != value:
        why = f"the {count} images all have the same value"
    return judged("strength", value, why, score=score, **figures)


def kept(score: float, base: float, held: float) -> Criterion:
    """Judge what an image keeps of its score under transforms that no step has seen."""
    figures = {"score": score, "held_out": held, "scrambled": base, "views": VIEWS}
    value = share(held, score, base)
    if value == value:
        return judged(
            "held_out", value, f"of the score remains in {VIEWS} held-out views", **figures
        )
    if score < base:
        why = "the image scores no more than its own pixels in random order"
        return doubted("held_out", why, **figures)
    return unmeasured("held_out", "the order of the pixels makes no difference", **figures)


def steady(values: Sequence[float], base: float, **more: float) -> Criterion:
    """Judge the scores of images of several seeds: the lowest as a share of the highest."""
    figures = {"scores": list(values), "scrambled": base, **more}
    if len(values) < 2:
        return unmeasured("seeds", "one seed only", **figures)
    if not all(map(math.isfinite, values)):
        return doubted("seeds", "an image of one of the seeds has no score", **figures)
    value = share(min(values), max(values), base)
    why = f"the lowest score of {len(values)} seeds as a share of the highest"
    if value != value:
        why = "no image scores more than its own pixels in random order"
    return judged("seeds", value, why, **figures)
