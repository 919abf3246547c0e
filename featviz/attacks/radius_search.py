"""The smallest radius that an attack succeeds with."""

from __future__ import annotations

import math

import torch

from featviz.attacks.criterion import AttackCriterion
from featviz.attacks.restarts import Attacked, AttackRun, attack_with_restarts
from featviz.param.balls import LEVELS
from featviz.types import Tensor

#: How close the search comes: what succeeded over what did not.
CLOSE = 1.05
#: Radii that are tried at most.
TRIALS = 32


def smallest_radius(
    run: AttackRun, images: Tensor, criterion: AttackCriterion, first: float, seeds: list[int]
) -> tuple[Attacked, Tensor]:
    """Search for each image the smallest radius that succeeds, by doubling and bisection.

    Every trial is a whole attack on all images that are undecided. Returns the images and their
    radii (B,), infinite where nothing succeeded.
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
        chosen, own = criterion.select(rows), [seeds[i] for i in rows]
        trial = attack_with_restarts(run, images[rows], chosen, radius[rows].float(), own)
        if best is None:
            best = trial
        for k, i in enumerate(rows):
            if trial.success[k]:
                reached = run.distance(trial.results[k].images, images[i : i + 1])
                high[i] = min(float(high[i]), float(reached))
                best.results[i], best.after[i] = trial.results[k], trial.after[k]
                best.success[i] = True
            else:
                low[i] = radius[i]
        between = torch.where(low > 0, (low * high).sqrt(), high / 4)
        radius = torch.where(high.isinf(), radius * 2, between)
        if any(result.interrupted for result in trial.results):
            best.results[0].interrupted = True
            break
        undecided &= high > low * CLOSE
        undecided &= (radius <= largest) & (radius > 1e-7)
        if settings.eight_bit and settings.norm == "linf":
            level = (radius * LEVELS).round().clamp_min(1)
            radius = level.maximum((low * LEVELS).round() + 1) / LEVELS
            undecided &= radius < high - 0.5 / LEVELS
        if not undecided.any():
            break
    assert best is not None
    return best, high
