"""Balls in the L-inf, L2 and L1 norm: nearest points, draws, and what 8 bits leave of them."""

from __future__ import annotations

import torch

from featviz.types import Tensor

NORMS = ("linf", "l2", "l1")
#: The steps from black to white of 8 bits.
LEVELS = 255


def length(delta: Tensor, norm: str) -> Tensor:
    """Return the norm (B,) of each sample of ``delta`` (B, …)."""
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm(delta.flatten(1), order, dim=1)


def project(delta: Tensor, norm: str, eps: float | Tensor) -> Tensor:
    """Return the nearest point of each sample's ball of radius ``eps`` to ``delta`` (B, …).

    ``eps`` is a number or one a sample (B,). Nearest in the Euclidean sense; for L1 by the
    sorting algorithm of [Duchi2008]_, Figure 1.
    """
    flat = delta.flatten(1)
    radius = torch.as_tensor(eps, dtype=delta.dtype, device=delta.device).reshape(-1, 1)
    if norm == "linf":
        return flat.clamp(-radius, radius).view_as(delta)
    if norm == "l2":
        size = flat.norm(dim=1, keepdim=True)
        return (flat * (radius / torch.maximum(size, radius))).view_as(delta)
    size = flat.abs()
    ordered = size.sort(dim=1, descending=True).values
    count = torch.arange(1, size.shape[1] + 1, device=delta.device)
    excess = (ordered.cumsum(1) - radius) / count
    last = ((ordered > excess).sum(1, keepdim=True) - 1).clamp_min(0)
    threshold = excess.gather(1, last).clamp_min(0)
    inside = size.sum(1, keepdim=True) <= radius
    left = (size - threshold).clamp_min(0)
    # Differences of large sums round; what that leaves outside is scaled back.
    left = left * (radius / torch.maximum(left.sum(1, keepdim=True), radius))
    cut = flat.sign() * left
    return torch.where(inside, flat, cut).view_as(delta)


def sample(generator: torch.Generator, norm: str, shape: tuple[int, ...]) -> Tensor:
    """Return a point drawn uniformly from the unit ball, with ``shape``, on the CPU.

    L2 and L1 as in [Barthe2005]_: normal or Laplacian numbers, over the norm that they have
    together with exponential ones.
    """
    count = 1
    for side in shape:
        count *= side
    if norm == "linf":
        return torch.rand(shape, generator=generator) * 2 - 1
    extra = -torch.rand(1, generator=generator).clamp_min(1e-12).log()
    if norm == "l2":
        point = torch.randn(count, generator=generator)
        return (point / (point.square().sum() + 2 * extra).sqrt()).view(shape)
    sign = torch.rand(count, generator=generator) * 2 - 1
    point = -torch.rand(count, generator=generator).clamp_min(1e-12).log()
    return (point * sign.sign() / (point.sum() + extra)).view(shape)


def quantize(delta: Tensor, norm: str, eps: float | Tensor) -> Tensor:
    """Return whole levels (B, …) of 8 bits near ``delta``, inside the ball: exactly, in integers.

    L-inf: rounded, but no further than the largest level within ``eps``. L2 and L1: rounded
    towards zero, and then up again where the most was lost, as long as the ball has room: a
    perturbation spread over many pixels would be gone otherwise.
    """
    flat = delta.detach().flatten(1).double() * LEVELS
    # A ball of 4/255 holds four levels, whatever the rounding of 4/255 * 255.
    radius = torch.as_tensor(eps, dtype=torch.float64, device=delta.device).reshape(-1, 1)
    radius = radius * LEVELS + 1e-4
    if norm == "linf":
        most = radius.floor()
        return flat.round().clamp(-most, most).view_as(delta)
    low = flat.abs().floor()
    lost, order = (flat.abs() - low).sort(dim=1, descending=True)
    price = (2 * low + 1 if norm == "l2" else torch.ones_like(low)).gather(1, order)
    spent = (low.square() if norm == "l2" else low).sum(1, keepdim=True)
    room = (radius.square() if norm == "l2" else radius) - spent
    raised = ((price * (lost > 0)).cumsum(1) <= room) & (lost > 0)
    up = torch.zeros_like(low).scatter(1, order, raised.to(low.dtype))
    return (flat.sign() * (low + up)).view_as(delta)
