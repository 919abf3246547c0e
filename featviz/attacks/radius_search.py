"""Search for the smallest radius with which an attack succeeds."""

from __future__ import annotations

import math

import torch

from featviz.attacks.criterion import AttackCriterion
from featviz.attacks.restarts import Attacked, AttackRun, attack_with_restarts
from featviz.param.balls import LEVELS
from featviz.types import Tensor

#: Ratio of the smallest successful to the largest failed radius at which the search ends.
TOLERANCE = 1.05
#: Maximum number of radii to try.
TRIALS = 32


def smallest_radius(
    run: AttackRun, images: Tensor, criterion: AttackCriterion, first: float, seeds: list[int]
) -> tuple[Attacked, Tensor]:
    """Find the smallest successful radius for each image, by doubling and bisection.

    Every trial is a complete attack on all undecided images. Return the attacked images and their
    radii (B,), infinite for images for which no attack succeeded.
    """
    count, numel = len(images), images[0].numel()
    settings = run.settings
    largest = {"linf": 1.0, "l2": math.sqrt(numel), "l1": float(numel)}[settings.norm]
    low = torch.zeros(count, dtype=torch.float64)
    high = torch.full_like(low, torch.inf)
    radius = torch.full_like(low, first)
    best: Attacked | None = None
    undecided = torch.ones(count, dtype=torch.bool)
    for _ in range(TRIALS):
        rows = undecided.nonzero().flatten().tolist()
        subset, subset_seeds = criterion.select(rows), [seeds[i] for i in rows]
        trial = attack_with_restarts(run, images[rows], subset, radius[rows].float(), subset_seeds)
        if best is None:
            best = trial
        for k, i in enumerate(rows):
            if trial.success[k]:
                distance = run.distance(trial.results[k].images, images[i : i + 1])
                high[i] = min(float(high[i]), float(distance))
                best.results[i], best.after[i] = trial.results[k], trial.after[k]
                best.success[i] = True
            else:
                low[i] = radius[i]
        bisected = torch.where(low > 0, (low * high).sqrt(), high / 4)
        radius = torch.where(high.isinf(), radius * 2, bisected)
        if any(result.interrupted for result in trial.results):
            best.results[0].interrupted = True
            break
        undecided &= high > low * TOLERANCE
        undecided &= (radius <= largest) & (radius > 1e-7)
        if settings.eight_bit and settings.norm == "linf":
            level = (radius * LEVELS).round().clamp_min(1)
            radius = level.maximum((low * LEVELS).round() + 1) / LEVELS
            undecided &= radius < high - 0.5 / LEVELS
        if not undecided.any():
            break
    assert best is not None
    return best, high
