"""Perturbation-based attribution: replace regions of an image by the baseline."""

from __future__ import annotations

import math

import torch

from featviz.attribution.baselines import grid
from featviz.attribution.case import Case, captum
from featviz.errors import FeatvizError
from featviz.param.mask import cell_counts
from featviz.seeds import generator
from featviz.types import Tensor


def occlusion(case: Case) -> Tensor:
    """Return how much the value drops under a window, averaged over the windows that cover a pixel.

    The window moves by one cell, of ``cells`` along the longer side, and is two cells wide; it
    shows the baseline. [Zeiler2014]_
    """
    size = tuple(case.image.shape[2:])
    strides = [max(1, s // n) for s, n in zip(size, cell_counts(size, _cells(case)), strict=True)]
    window = [min(2 * step, side) for step, side in zip(strides, size, strict=True)]
    channels = case.image.shape[1]
    with torch.no_grad():
        attributions: Tensor = (
            captum()
            .Occlusion(case.evaluator)
            .attribute(
                case.image,
                sliding_window_shapes=(channels, *window),
                strides=(channels, *strides),
                baselines=case.base,
                perturbations_per_eval=case.batch_size,
            )
        )
    return attributions[:, :1]  # a window covers all channels: their values are equal


def feature_ablation(case: Case) -> Tensor:
    """Return how much the value drops without a region, for each of its pixels.

    The regions are ``segments``, or a grid of ``cells``; an ablated region shows the baseline.
    """
    labels, _ = regions(case)
    with torch.no_grad():
        attributions: Tensor = (
            captum()
            .FeatureAblation(case.evaluator)
            .attribute(
                case.image,
                baselines=case.base,
                feature_mask=labels[None, None].to(case.image.device),
                perturbations_per_eval=case.batch_size,
            )
        )
    return attributions[:, :1]


def kernel_shap(case: Case) -> Tensor:
    """Return the Shapley value of each region; every pixel has the value of its region.

    ``steps`` coalitions of regions, in pairs of a coalition and its complement, are sampled with
    the sample's seed; the Shapley kernel gives the probability of their sizes. A linear model of
    the values is fitted by least squares, constrained to the exact sum. If there are few enough
    coalitions, all are used, weighted by the kernel. [Lundberg2017]_

    Raises
    ------
    FeatvizError
        If there is one region, if the coalitions are too few to determine the values (a coalition
        and its complement are one equation), or if the objective is not finite on one of them.
    """
    labels, count = regions(case)
    if count < 2:
        raise FeatvizError("kernel_shap needs at least two regions")
    members, weights = coalitions(count, case.options["steps"], case.seed)
    # Σ φ = full - base eliminates the last region, so that the sum is exact.
    design = members.double()
    lhs = design[:, :-1] - design[:, -1:]
    remedy = (
        f"use more steps or fewer {'cells' if case.options['segments'] is None else 'segments'}"
    )
    minimum = min(2 * (count - 1), 2**count - 2)
    if len(members) < minimum:
        raise FeatvizError(f"{count} regions need at least {minimum} coalitions: {remedy}")
    if torch.linalg.matrix_rank(lhs) < count - 1:
        raise FeatvizError(
            f"the {len(members)} sampled coalitions do not determine {count} regions: {remedy}"
        )
    extremes = torch.stack([torch.zeros(count), torch.ones(count)]).bool()
    chunks = []
    for chunk in torch.cat([extremes, members]).split(case.batch_size):
        visible = chunk[:, labels][:, None].to(case.image.device)
        chunks.append(case.evaluator.scores(torch.where(visible, case.image, case.base)))
    values = torch.cat(chunks).double()
    if not values.isfinite().all():
        raise FeatvizError(
            f"kernel_shap: {case.evaluator.objective} is not finite with regions removed: "
            "use another baseline"
        )
    base, full = values[0], values[1]
    rhs = values[2:] - base - design[:, -1] * (full - base)
    sqrt_weights = weights.sqrt()
    fit = torch.linalg.lstsq(
        lhs * sqrt_weights[:, None], (rhs * sqrt_weights)[:, None], driver="gelsd"
    )
    phi = fit.solution[:, 0]
    phi = torch.cat([phi, (full - base - phi.sum())[None]])
    return phi[labels][None, None].to(case.image)


def coalitions(count: int, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the members of each coalition of ``count`` regions (n, count), and the weights (n,).

    The empty coalition and the one of all regions are left out.
    """
    if count < 63 and 2**count - 2 <= most:
        codes = torch.arange(1, 2**count - 1)
        members = (codes[:, None] >> torch.arange(count)) & 1 > 0
        kernel = [
            (count - 1) / (math.comb(count, s) * s * (count - s)) for s in members.sum(1).tolist()
        ]
        return members, torch.tensor(kernel, dtype=torch.float64)
    sizes = torch.arange(1, count, dtype=torch.float64)
    probabilities = 1 / (sizes * (count - sizes))
    rng = generator(seed, "kernel_shap")
    rows = torch.zeros(most, count, dtype=torch.bool)
    sampled_sizes = (
        torch.multinomial(probabilities, (most + 1) // 2, replacement=True, generator=rng) + 1
    )
    for pair, size in enumerate(sampled_sizes.tolist()):
        rows[2 * pair, torch.randperm(count, generator=rng)[:size]] = True
        if 2 * pair + 1 < most:
            rows[2 * pair + 1] = ~rows[2 * pair]
    return rows, torch.ones(most, dtype=torch.float64)


def regions(case: Case) -> tuple[Tensor, int]:
    """Return the region index of each pixel (*size), from 0, and the number of regions.

    Raises
    ------
    FeatvizError
        If ``segments`` are not integers of the image's size.
    """
    segments = case.options["segments"]
    size = tuple(case.image.shape[2:])
    if segments is None:
        labels = grid(size, _cells(case))
    else:
        values = torch.as_tensor(segments).cpu()
        if tuple(values.shape) != size or values.is_floating_point():
            raise FeatvizError(
                f"segments must be whole numbers of shape {size}, not {values.dtype} of "
                f"{tuple(values.shape)}"
            )
        labels = values.unique(return_inverse=True)[1]
    return labels, int(labels.max()) + 1


def _cells(case: Case) -> int:
    return int(case.options["cells"])
