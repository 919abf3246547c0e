"""Balls in the L-inf, L2 and L1 norm: projection, sampling, and 8-bit quantization."""

from __future__ import annotations

import torch

from featviz.types import Tensor

NORMS = ("linf", "l2", "l1")
#: Number of 8-bit steps from black to white.
LEVELS = 255


def length(delta: Tensor, norm: str) -> Tensor:
    """Return the norm (B,) of each sample of ``delta`` (B, …)."""
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm(delta.flatten(1), order, dim=1)


def project(delta: Tensor, norm: str, eps: float | Tensor) -> Tensor:
    """Return the projection of ``delta`` (B, …) onto each sample's ball of radius ``eps``.

    ``eps`` is a number or one per sample, (B,). The projection is Euclidean; for L1 it uses the
    sorting algorithm of [Duchi2008]_, Figure 1.
    """
    flat = delta.flatten(1)
    radius = torch.as_tensor(eps, dtype=delta.dtype, device=delta.device).reshape(-1, 1)
    if norm == "linf":
        return flat.clamp(-radius, radius).view_as(delta)
    if norm == "l2":
        norms = flat.norm(dim=1, keepdim=True)
        return (flat * (radius / torch.maximum(norms, radius))).view_as(delta)
    magnitude = flat.abs()
    ordered = magnitude.sort(dim=1, descending=True).values
    count = torch.arange(1, magnitude.shape[1] + 1, device=delta.device)
    excess = (ordered.cumsum(1) - radius) / count
    pivot = ((ordered > excess).sum(1, keepdim=True) - 1).clamp_min(0)
    threshold = excess.gather(1, pivot).clamp_min(0)
    inside = magnitude.sum(1, keepdim=True) <= radius
    shrunk = (magnitude - threshold).clamp_min(0)
    # Differences of large sums are inexact: scale back what rounding leaves outside.
    shrunk = shrunk * (radius / torch.maximum(shrunk.sum(1, keepdim=True), radius))
    projected = flat.sign() * shrunk
    return torch.where(inside, flat, projected).view_as(delta)


def sample(generator: torch.Generator, norm: str, shape: tuple[int, ...]) -> Tensor:
    """Return a point drawn uniformly from the unit ball, with ``shape``, on the CPU.

    L2 and L1 as in [Barthe2005]_: normal or Laplacian variates, divided by their joint norm with an
    additional exponential variate.
    """
    count = 1
    for side in shape:
        count *= side
    if norm == "linf":
        return torch.rand(shape, generator=generator) * 2 - 1
    exponential = -torch.rand(1, generator=generator).clamp_min(1e-12).log()
    if norm == "l2":
        point = torch.randn(count, generator=generator)
        return (point / (point.square().sum() + 2 * exponential).sqrt()).view(shape)
    sign = torch.rand(count, generator=generator) * 2 - 1
    point = -torch.rand(count, generator=generator).clamp_min(1e-12).log()
    return (point * sign.sign() / (point.sum() + exponential)).view(shape)


def quantize(delta: Tensor, norm: str, eps: float | Tensor) -> Tensor:
    """Return 8-bit levels (B, …) near ``delta`` that are exactly inside the ball, in integers.

    L-inf: rounded, but at most to the largest level within ``eps``. L2 and L1: rounded towards
    zero, then up again where rounding removed the most, as long as the ball has room: otherwise a
    perturbation spread over many pixels would vanish.
    """
    flat = delta.detach().flatten(1).double() * LEVELS
    # A ball of 4/255 contains four levels, however 4/255 * 255 is rounded.
    radius = torch.as_tensor(eps, dtype=torch.float64, device=delta.device).reshape(-1, 1)
    radius = radius * LEVELS + 1e-4
    if norm == "linf":
        max_level = radius.floor()
        return flat.round().clamp(-max_level, max_level).view_as(delta)
    floor = flat.abs().floor()
    fraction, order = (flat.abs() - floor).sort(dim=1, descending=True)
    cost = (2 * floor + 1 if norm == "l2" else torch.ones_like(floor)).gather(1, order)
    used = (floor.square() if norm == "l2" else floor).sum(1, keepdim=True)
    budget = (radius.square() if norm == "l2" else radius) - used
    raised = ((cost * (fraction > 0)).cumsum(1) <= budget) & (fraction > 0)
    increment = torch.zeros_like(floor).scatter(1, order, raised.to(floor.dtype))
    return (flat.sign() * (floor + increment)).view_as(delta)
