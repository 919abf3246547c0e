"""The prior that the quality presets give to objectives on class logits.

A class logit alone pays for activations that no photograph causes, and for grain on every surface.
The prior prices both: it is :func:`featviz.batchnorm_match` on the batch-norm layers with the
fewest values, which are the deep ones, less :func:`featviz.multiscale_variation`, times ``weight``
for each logit. Objectives on inner units get none, so that an early channel need not pay for the
whole network. Neither do networks without batch norm, unless a weight is given: the presets' is
measured on networks whose logits span tens, and a small network's would drown in it. The scores of
a run are those of the objective without it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from featviz.errors import FeatvizError, UnitError
from featviz.networks.model import Model
from featviz.objectives.base import Objective, terms_of
from featviz.objectives.batchnorm import BatchnormMatch
from featviz.objectives.classes import ClassLogit
from featviz.objectives.group import Mean
from featviz.objectives.measured_prior import ActivationPrior
from featviz.objectives.scene import Scene, Score, Target
from featviz.objectives.variation import MultiscaleVariation
from featviz.types import Tensor

#: The layers with the fewest values, up to this share of the values of all batch-norm layers, have
#: most of what all of them buy, at a tenth of the cost (docs/quality.md).
BATCHNORM = BatchnormMatch(share=0.1)
#: The length of gradients at the two finest scales: what calms surfaces without bending edges.
VARIATION = MultiscaleVariation(scales=2)
VARIATION_WEIGHT = 3.0


def prior(target: Target) -> Objective:
    """Return the prior of weight 1 for a network and size.

    Raises
    ------
    UnitError
        If neither activations nor the image have positions.
    """
    smooth = -VARIATION_WEIGHT * VARIATION
    if _has_batchnorm(target):
        return BATCHNORM + smooth
    VARIATION.bind(target)
    return smooth


def _has_batchnorm(target: Target) -> bool:
    try:
        BATCHNORM.needs(target)
    except UnitError:
        return False
    return True


def applicable(weight: float | None, preset: float, model: Model, size: tuple[int, ...]) -> float:
    """Return the weight of the prior: that of the preset if None, and 0 without batch norm then.

    Raises
    ------
    FeatvizError
        If a weight is given and there is nothing to act on.
    """
    if weight == 0 or (weight is None and preset == 0):
        return 0.0
    target = Target(model, size, 1)
    if weight is None:
        return preset if _has_batchnorm(target) else 0.0
    try:
        prior(target)
    except UnitError as error:
        raise FeatvizError(f"prior={weight:g} has nothing to act on: {error}; use 0") from None
    return float(weight)


def logit_weight(objective: Objective) -> float:
    """Return the sum of the absolute coefficients of class logits in one sample's objective.

    Zero for an objective that has a prior on activations of its own.
    """
    if isinstance(objective, Mean):
        parts = [logit_weight(part) for part in objective.parts]
        return sum(parts) / len(parts)
    terms = terms_of(objective)
    if any(isinstance(part, (BatchnormMatch, ActivationPrior)) for _, part in terms):
        return 0.0
    if len(terms) == 1 and terms[0][1] is objective:
        return float(isinstance(objective, ClassLogit))
    return sum(abs(coefficient) * logit_weight(part) for coefficient, part in terms)


def weights(weight: float, objective: Objective, batch: int) -> list[float]:
    """Return the weight of the prior for each of ``batch`` samples of an objective."""
    if weight == 0 or objective.relational:
        return [0.0] * batch
    return [weight * logit_weight(objective.sliced(slice(i, i + 1))) for i in range(batch)]


def bind(values: list[float], target: Target) -> Score:
    """Return the prior of the samples of a batch, each times its weight: (B,)."""
    score = prior(target).bind(target)
    by_sample: Callable[[Scene], Tensor] = score
    factors = torch.tensor(values, device=target.device)
    return lambda scene: factors * by_sample(scene)
