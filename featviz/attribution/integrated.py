"""Integrated gradients, with as many steps as the convergence delta needs."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import torch

from featviz.attribution.case import Case
from featviz.attribution.completeness import NEGLIGIBLE, warn_if_incomplete
from featviz.attribution.gradient_based import gradients
from featviz.types import Tensor

#: Points of each part of the path, parts to begin with, and the most points of a path.
POINTS, PARTS, MOST = 4, 4, 1024
#: The deltas of the parts may cancel, but their absolute values are within this many tolerances.
CANCELLATION = 10


@dataclasses.dataclass
class _Part:
    """A part of the path, from one fraction of it to another.

    ``slope`` is the integral of the gradient over it, and ``delta`` by how much the objective
    changes less along it than the integral says.
    """

    start: float
    end: float
    slope: Tensor
    delta: float


def integrated_gradients(case: Case) -> Tensor:
    """Return (x - b) times the mean gradient on the straight path from b to x. [Sundararajan2017]_.

    The mean is a Gauss-Legendre quadrature. With ``steps`` it has that many points. Otherwise the
    path begins in parts of a few points each, and the parts that are least like the change of the
    objective along them are halved, until the convergence delta is within ``tolerance`` of the
    difference between the image and the baseline. A warning says where it cannot be reached.

    Several baselines are averaged. [Sturmfels2020]_
    """
    total = torch.zeros(case.image.shape, dtype=torch.float64)
    evaluations = []
    for baseline in case.base.split(1):
        slope, count = _mean_slope(case, baseline)
        total += slope * (case.image - baseline).double().cpu()
        evaluations.append(count)
    if case.options["steps"] is None:
        case.notes["steps"] = max(evaluations)
    attributions = (total / len(case.base)).to(case.image)
    remedy = "use more steps" if case.options["steps"] else f"not reached in {MOST} steps"
    warn_if_incomplete(case, attributions, "integrated_gradients", remedy)
    return attributions


def _mean_slope(case: Case, baseline: Tensor) -> tuple[Tensor, int]:
    """Return the mean gradient (1, C, *size) on the path from a baseline, and how many it took."""
    steps = case.options["steps"]
    if steps is not None:
        return _integrals(case, baseline, [(0.0, 1.0)], int(steps))[0], int(steps)
    edges = [i / PARTS for i in range(PARTS + 1)]
    values = dict(zip(edges, _values(case, baseline, edges), strict=True))
    scale = max(
        abs(values[1.0] - values[0.0]), NEGLIGIBLE * max(abs(values[0.0]), abs(values[1.0]))
    )
    allowed = case.options["tolerance"] * scale
    parts = _parts(case, baseline, list(itertools.pairwise(edges)), values)
    count = PARTS * POINTS
    while True:
        parts.sort(key=lambda part: abs(part.delta))
        deviation = sum(abs(part.delta) for part in parts)
        delta = sum(part.delta for part in parts)
        converged = abs(delta) <= allowed and deviation <= CANCELLATION * allowed
        if converged or count >= MOST or not np.isfinite(deviation):
            return torch.stack([part.slope for part in parts]).sum(0), count
        worst: list[_Part] = []
        removed = 0.0
        while parts and removed < deviation / 2 and count + 2 * POINTS * len(worst) < MOST:
            worst.append(parts.pop())
            removed += abs(worst[-1].delta)
        middles = [(part.start + part.end) / 2 for part in worst]
        values.update(zip(middles, _values(case, baseline, middles), strict=True))
        halves = [
            half
            for part, middle in zip(worst, middles, strict=True)
            for half in ((part.start, middle), (middle, part.end))
        ]
        parts += _parts(case, baseline, halves, values)
        count += POINTS * len(halves)


def _parts(
    case: Case, baseline: Tensor, spans: list[tuple[float, float]], values: dict[float, float]
) -> list[_Part]:
    difference = (case.image - baseline).double().cpu()
    return [
        _Part(start, end, slope, float((slope * difference).sum()) - (values[end] - values[start]))
        for (start, end), slope in zip(
            spans, _integrals(case, baseline, spans, POINTS), strict=True
        )
    ]


def _values(case: Case, baseline: Tensor, fractions: list[float]) -> list[float]:
    """Return the objective's values at fractions of the path."""
    images = torch.cat([torch.lerp(baseline, case.image, fraction) for fraction in fractions])
    return case.evaluator.scores(images).double().tolist()


def _integrals(
    case: Case, baseline: Tensor, spans: list[tuple[float, float]], points: int
) -> list[Tensor]:
    """Return the integral (1, C, *size) of the gradient over each span of the path."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    positions = [
        (index, start + (end - start) * (node + 1) / 2, (end - start) * weight / 2)
        for index, (start, end) in enumerate(spans)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True)
    ]
    totals = [torch.zeros(case.image.shape, dtype=torch.float64) for _ in spans]
    for first in range(0, len(positions), case.batch_size):
        chunk = positions[first : first + case.batch_size]
        images = torch.cat([torch.lerp(baseline, case.image, t) for _, t, _ in chunk])
        slopes = gradients(case, images.requires_grad_()).detach().cpu().double()
        for (index, _, weight), slope in zip(chunk, slopes.split(1), strict=True):
            totals[index] += weight * slope
    return totals
