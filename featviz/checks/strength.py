"""How strongly an image activates its unit, and how robust that is to perturbations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from featviz.checks.verdicts import Criterion, doubtful, judge, not_measured
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.optim.evaluator import scores
from featviz.rendering.held_out import VIEWS
from featviz.seeds import generator
from featviz.types import Tensor

#: Random orders of the pixels of each image.
SCRAMBLED = 4


def scrambled_score(model: Model, goal: Objective, images: Tensor, seeds: Sequence[int]) -> Tensor:
    """Return the mean score (B,) of each image with its pixels in random order.

    This is what its colours alone are worth. Scores are measured from it, since the zero of a logit
    or of a channel means nothing.
    """
    total = torch.zeros(len(images))
    rngs = [generator(seed, "scrambled") for seed in seeds]
    count = images[0, 0].numel()
    for _ in range(SCRAMBLED):
        scrambled = [
            image.flatten(1)[:, torch.randperm(count, generator=rng)].view_as(image)
            for image, rng in zip(images, rngs, strict=True)
        ]
        total += scores(model, goal, torch.stack(scrambled))
    return total / SCRAMBLED


def relative_score(value: float, score: float, base: float) -> float:
    """Return where a value lies from ``base`` (0) to ``score`` (1); NaN if ``score`` is no higher.

    >>> relative_score(3.0, 5.0, 1.0)
    0.5
    """
    # If the order of the pixels does not matter, the difference is only rounding.
    if not score - base > 1e-4 * max(abs(score), abs(base)):
        return float("nan")
    return (value - base) / (score - base)


def below(value: float, quantiles: Tensor) -> float:
    """Return the share of values below ``value``, given their quantiles at 0, 1/n, …, 1 (n + 1,).

    >>> below(0.25, torch.tensor([0.0, 0.5, 1.0]))
    0.25
    """
    count = len(quantiles) - 1
    index = int(torch.searchsorted(quantiles, torch.tensor(value, dtype=quantiles.dtype)))
    if index == 0 or index > count:
        return 0.0 if index == 0 else 1.0
    low, high = float(quantiles[index - 1]), float(quantiles[index])
    return (index - 1 + (value - low) / (high - low)) / count


def strength_criterion(score: float, best: float, quantiles: Tensor, count: int) -> Criterion:
    """Judge a score against those of ``count`` images: 1 is the best image's, 0 their median.

    ``quantiles`` (n + 1,) are those of the images' values at 0, 1/n, …, 1.
    """
    median = float(quantiles[len(quantiles) // 2])
    quantile = below(score, quantiles)
    figures = {"best": best, "median": median, "quantile": quantile, "images": count}
    value = relative_score(score, best, median)
    why = f"where 1 is the best of {count} images and 0 their median"
    if value != value:
        why = f"the {count} images all have the same value"
    return judge("strength", value, why, score=score, **figures)


def held_out_criterion(score: float, base: float, held: float) -> Criterion:
    """Judge how much of its score an image keeps under held-out transforms."""
    figures = {"score": score, "held_out": held, "scrambled": base, "views": VIEWS}
    value = relative_score(held, score, base)
    if value == value:
        return judge(
            "held_out", value, f"of the score remains in {VIEWS} held-out views", **figures
        )
    if score < base:
        why = "the image scores no more than its own pixels in random order"
        return doubtful("held_out", why, **figures)
    return not_measured("held_out", "the order of the pixels makes no difference", **figures)


def seeds_criterion(values: Sequence[float], base: float, **more: float) -> Criterion:
    """Judge the scores of several seeds: the lowest relative to the highest."""
    figures = {"scores": list(values), "scrambled": base, **more}
    if len(values) < 2:
        return not_measured("seeds", "one seed only", **figures)
    if not all(map(math.isfinite, values)):
        return doubtful("seeds", "the image of one of the seeds has no score", **figures)
    value = relative_score(min(values), max(values), base)
    why = f"the lowest score of {len(values)} seeds relative to the highest"
    if value != value:
        why = "no image scores more than its own pixels in random order"
    return judge("seeds", value, why, **figures)
