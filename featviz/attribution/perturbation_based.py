"""Attribution by taking regions of an image away."""

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
    """Return how much the value falls under a window, the mean over the windows on a pixel.

    The window moves by a cell of ``cells`` along the longer side and is two cells wide; under it
    is the baseline. [Zeiler2014]_
    """
    size = tuple(case.image.shape[2:])
    strides = [max(1, s // n) for s, n in zip(size, cell_counts(size, _cells(case)), strict=True)]
    window = [min(2 * step, side) for step, side in zip(strides, size, strict=True)]
    channels = case.image.shape[1]
    with torch.no_grad():
        found: Tensor = (
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
    return found[:, :1]  # a window takes all channels: each has the same


def feature_ablation(case: Case) -> Tensor:
    """Return how much the value falls without a region, for each of its pixels.

    The regions are those of ``segments``, or a grid of ``cells``; each has the baseline's pixels.
    """
    labels, _ = regions(case)
    with torch.no_grad():
        found: Tensor = (
            captum()
            .FeatureAblation(case.evaluator)
            .attribute(
                case.image,
                baselines=case.base,
                feature_mask=labels[None, None].to(case.image.device),
                perturbations_per_eval=case.batch_size,
            )
        )
    return found[:, :1]


def kernel_shap(case: Case) -> Tensor:
    """Return the Shapley value of each region, shared among no pixels: each has the region's.

    ``steps`` coalitions of regions, in pairs of one and all the others, are drawn from the
    sample's seed with the probability that the Shapley kernel gives their number of members; a
    linear model of the values is fitted by least squares, whose sum is exact. With regions of which
    there are few enough coalitions, all are taken, weighted by the kernel. [Lundberg2017]_

    Raises
    ------
    FeatvizError
        With one region, with fewer coalitions than tell the regions apart (a coalition and all the
        others make one equation), or if the objective is not finite on one of them.
    """
    labels, count = regions(case)
    if count < 2:
        raise FeatvizError("kernel_shap needs at least two regions")
    drawn, weights = coalitions(count, case.options["steps"], case.seed)
    # Σ φ = whole - nothing is put in for the last region, so that it holds exactly.
    rows = drawn.double()
    left = rows[:, :-1] - rows[:, -1:]
    remedy = f"more steps or fewer {'cells' if case.options['segments'] is None else 'segments'}"
    least = min(2 * (count - 1), 2**count - 2)
    if len(drawn) < least:
        raise FeatvizError(f"{count} regions take at least {least} coalitions: {remedy}")
    if torch.linalg.matrix_rank(left) < count - 1:
        raise FeatvizError(
            f"the {len(drawn)} coalitions drawn do not tell {count} regions apart: {remedy}"
        )
    ends = torch.stack([torch.zeros(count), torch.ones(count)]).bool()
    values = []
    for part in torch.cat([ends, drawn]).split(case.batch_size):
        shown = part[:, labels][:, None].to(case.image.device)
        values.append(case.evaluator.scores(torch.where(shown, case.image, case.base)))
    found = torch.cat(values).double()
    if not found.isfinite().all():
        raise FeatvizError(
            f"kernel_shap: {case.evaluator.objective} is not finite where regions are taken away: "
            "take another baseline"
        )
    nothing, whole = found[0], found[1]
    right = found[2:] - nothing - rows[:, -1] * (whole - nothing)
    root = weights.sqrt()
    solved = torch.linalg.lstsq(left * root[:, None], (right * root)[:, None], driver="gelsd")
    phi = solved.solution[:, 0]
    phi = torch.cat([phi, (whole - nothing - phi.sum())[None]])
    return phi[labels][None, None].to(case.image)


def coalitions(count: int, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return which of ``count`` regions are in each coalition (n, count), and their weights (n,).

    Those with none or all of the regions are left out.
    """
    if count < 63 and 2**count - 2 <= most:
        numbers = torch.arange(1, 2**count - 1)
        drawn = (numbers[:, None] >> torch.arange(count)) & 1 > 0
        kernel = [
            (count - 1) / (math.comb(count, s) * s * (count - s)) for s in drawn.sum(1).tolist()
        ]
        return drawn, torch.tensor(kernel, dtype=torch.float64)
    sizes = torch.arange(1, count, dtype=torch.float64)
    chances = 1 / (sizes * (count - sizes))
    draw = generator(seed, "kernel_shap")
    rows = torch.zeros(most, count, dtype=torch.bool)
    picked = torch.multinomial(chances, (most + 1) // 2, replacement=True, generator=draw) + 1
    for pair, members in enumerate(picked.tolist()):
        rows[2 * pair, torch.randperm(count, generator=draw)[:members]] = True
        if 2 * pair + 1 < most:
            rows[2 * pair + 1] = ~rows[2 * pair]
    return rows, torch.ones(most, dtype=torch.float64)


def regions(case: Case) -> tuple[Tensor, int]:
    """Return the number of the region of each pixel (*size), from 0 on, and how many there are.

    Raises
    ------
    FeatvizError
        If given segments are not whole numbers of the image's size.
    """
    given = case.options["segments"]
    size = tuple(case.image.shape[2:])
    if given is None:
        labels = grid(size, _cells(case))
    else:
        found = torch.as_tensor(given).cpu()
        if tuple(found.shape) != size or found.is_floating_point():
            raise FeatvizError(
                f"segments must be whole numbers of shape {size}, not {found.dtype} of "
                f"{tuple(found.shape)}"
            )
        labels = found.unique(return_inverse=True)[1]
    return labels, int(labels.max()) + 1


def _cells(case: Case) -> int:
    return int(case.options["cells"])
