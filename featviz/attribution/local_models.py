"""LIME: a linear model of the objective around an image, by its regions."""

from __future__ import annotations

import torch

from featviz.attribution.case import Case
from featviz.attribution.perturbation_based import regions
from featviz.errors import FeatvizError
from featviz.seeds import generator
from featviz.types import Tensor

#: Width of the kernel of cosine distances, and weight of the squared coefficients, as in the
#: authors' implementation for images.
_WIDTH, _RIDGE = 0.25, 1.0


def lime(case: Case) -> Tensor:
    """Return the coefficient of each region in a local linear model of the value. [Ribeiro2016]_.

    ``steps`` random sets of regions, each shown with probability 1/2 and the rest at the baseline,
    are weighted by exp(-(d / 0.25)²), d the cosine distance of the set from all regions; the first
    is the image itself. A ridge regression with an intercept fits the values. Unlike
    :func:`kernel_shap` the coefficients do not add up to anything: they are local slopes.

    Raises
    ------
    FeatvizError
        If there is one region, fewer steps than regions, or the objective is not finite for a set.
    """
    labels, count = regions(case)
    steps = case.options["steps"]
    if count < 2:
        raise FeatvizError("lime needs at least two regions")
    if steps <= count:
        raise FeatvizError(f"lime needs more steps than its {count} regions, not {steps}")
    rng = generator(case.seed, "lime")
    members = torch.rand(steps, count, generator=rng) < 0.5
    members[0] = True
    values = []
    for chunk in members.split(case.batch_size):
        visible = chunk[:, labels][:, None].to(case.image.device)
        values.append(case.evaluator.scores(torch.where(visible, case.image, case.base)))
    observed = torch.cat(values).double()
    if not observed.isfinite().all():
        raise FeatvizError(
            f"lime: {case.evaluator.objective} is not finite with regions removed: "
            "use another baseline"
        )
    design = members.double()
    # The cosine of a set with the set of all regions; that of the empty set is 0.
    distances = 1 - (design.sum(1) / count).sqrt()
    weights = (-((distances / _WIDTH) ** 2)).exp()
    total = weights.sum()
    centred = design - weights @ design / total
    response = observed - weights @ observed / total
    gram = (centred.T * weights) @ centred + _RIDGE * torch.eye(count, dtype=torch.float64)
    slopes = torch.linalg.solve(gram, centred.T @ (weights * response))
    return slopes[labels][None, None].to(case.image)
