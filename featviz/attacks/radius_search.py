"""The smallest radius that an attack succeeds with."""

from __future__ import annotations

import math

import torch

from featviz.attacks.criterion import Aim
from featviz.attacks.restarts import Found, Plan, distance, restarted
from featviz.param.balls import LEVELS
from featviz.types import Tensor

#: How near the search comes: what succeeded over what did not.
CLOSE = 1.05
#: Radii that it ends with at the latest.
ROUNDS = 32


def smallest(
    plan: Plan, images: Tensor, aim: Aim, first: float, seeds: list[int], restarts: int
) -> tuple[Found, Tensor]:
    """Search for each picture the smallest radius that succeeds, by doubling and bisection.

    Whole attacks, for all pictures that are undecided at once. Returns the pictures and their
    radii (B,), infinite where nothing succeeded.
    """
    count, numel = len(images), images[0].numel()
    largest = {"linf": 1.0, "l2": math.sqrt(numel), "l1": float(numel)}[plan.norm]
    low = torch.zeros(count, dtype=torch.float64)
    high = torch.full_like(low, torch.inf)
    test = torch.full_like(low, first)
    best: Found | None = None
    open_ = torch.ones(count, dtype=torch.bool)
    for _ in range(ROUNDS):
        rows = open_.nonzero().flatten().tolist()
        given = [seeds[i] for i in rows]
        found = restarted(plan, images[rows], aim.at(rows), test[rows].float(), given, restarts)
        if best is None:
            best = found
        for k, i in enumerate(rows):
            if found.success[k]:
                far = distance(found.results[k].images, images[i : i + 1], plan)
                high[i] = min(float(high[i]), float(far))
                best.results[i], best.after[i] = found.results[k], found.after[k]
                best.success[i] = True
            else:
                low[i] = test[i]
        test = torch.where(
            high.isinf(), test * 2, torch.where(low > 0, (low * high).sqrt(), high / 4)
        )
        if any(result.interrupted for result in found.results):
            best.results[0].interrupted = True
            break
        open_ &= high > low * CLOSE
        open_ &= (test <= largest) & (test > 1e-7)
        if plan.eight_bit and plan.norm == "linf":
            test = ((test * LEVELS).round().clamp_min(1)).maximum(
                (low * LEVELS).round() + 1
            ) / LEVELS
            open_ &= test < high - 0.5 / LEVELS
        if not open_.any():
            break
    assert best is not None
    return best, high
