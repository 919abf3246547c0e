"""XRAI: integrated gradients by regions."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from featviz.attribution.case import Case
from featviz.attribution.gradient_based import gradients
from featviz.attribution.perturbation_based import regions
from featviz.attribution.segmentation import segment
from featviz.errors import FeatvizError
from featviz.types import Tensor

#: Scales of the segmentations, as in the paper.
SCALES = (50.0, 100.0, 150.0, 250.0, 500.0, 1200.0)
#: Segments have at least this many of 224 x 224 pixels, and grow by this many pixels at the edges.
_LEAST, _GROWTH = 150 / 224**2, 5
#: The least part of the image that a region has to add.
_SLIVER = 50 / 224**2


def xrai(case: Case) -> Tensor:
    """Return, for each pixel, the mean attribution of its region when that is added.

    [Kapishnikov2019]_

    Integrated gradients from a black and a white baseline, ``steps`` points each, are averaged.
    Segments of several scales compete: the one whose pixels, as far as they are not covered yet,
    have the largest mean attribution is added next, and its new pixels get that mean. What is left
    of regions with fewer than 50 of 224 x 224 new pixels gets its common mean. ``segments``
    replaces the segments by your own.

    Raises
    ------
    FeatvizError
        If the image has no two spatial axes and no segments are given.
    """
    ends = [torch.zeros_like(case.image), torch.ones_like(case.image)]
    shares = torch.cat([_integrated(case, end) for end in ends]).mean(0).sum(0)
    masks = _candidates(case).flatten(1)
    flat = shares.flatten()
    areas, sums = masks.double().sum(1), masks.double() @ flat
    covered = torch.zeros(flat.shape, dtype=torch.bool)
    heat = torch.zeros_like(flat)
    # Slivers, whose mean may be anything, are not worth a region of their own.
    least = 1 if case.options["segments"] is not None else max(1, round(_SLIVER * flat.numel()))
    while (areas >= least).any():
        density = torch.where(areas >= least, sums / areas.clamp_min(1), -torch.inf)
        best = int(density.argmax())
        new = (masks[best] & ~covered).nonzero().flatten()
        heat[new] = float(density[best])
        covered[new] = True
        taken = masks[:, new].double()
        areas -= taken.sum(1)
        sums -= taken @ flat[new]
    if not covered.all():
        heat[~covered] = flat[~covered].mean()
    return heat.view(1, 1, *shares.shape).to(case.image)


def _candidates(case: Case) -> Tensor:
    """Return regions (N, *size) that together cover the image."""
    if case.options["segments"] is not None:
        labels, count = regions(case)
        return labels[None] == torch.arange(count).view(-1, *(1 for _ in labels.shape))
    if case.image.ndim != 4:
        raise FeatvizError("xrai segments images (C, H, W): give segments for other inputs")
    size = case.image.shape[2:]
    least = max(1, round(_LEAST * size[0] * size[1]))
    found = []
    for scale in SCALES:
        labels = segment(case.image[0], scale=scale, least=least)
        count = int(labels.max()) + 1
        masks = (labels[None] == torch.arange(count)[:, None, None]).float()[:, None]
        found.append(F.max_pool2d(masks, 2 * _GROWTH + 1, 1, _GROWTH)[:, 0] > 0)
    return torch.cat(found)


def _integrated(case: Case, end: Tensor) -> Tensor:
    """Return integrated gradients (1, C, *size) from the baseline ``end``, on the CPU."""
    steps = case.options["steps"]
    points, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros(case.image.shape, dtype=torch.float64)
    pairs = torch.tensor(np.stack([(points + 1) / 2, weights / 2], 1))
    for chunk in pairs.split(case.batch_size):
        along = chunk[:, 0].to(case.image).view(-1, *(1 for _ in case.image.shape[1:]))
        found = gradients(case, end.lerp(case.image, along).requires_grad_())
        total += torch.tensordot(chunk[:, 1], found.cpu().double(), dims=1)[None]
    return total * (case.image - end).cpu().double()
