"""How the free parameters move: optimizers, learning-rate schedules, what ascents share."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from featviz.errors import FeatvizError
from featviz.types import OptimizerFactory, Tensor


def default_rate(steps: int) -> float:
    """Return Adam's learning rate for a run: 0.1 up to 256 steps, then falling with their number.

    The way that a free parameter can go is bounded so: more steps refine an image instead of
    raising its contrast without end.
    """
    return 0.1 * min(1.0, 256 / steps)


def adam(lr: float) -> OptimizerFactory:
    """Return Adam with learning rate ``lr``, in one kernel where the device has one."""

    def make(leaves: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(leaves, lr=lr, fused=leaves[0].device.type in ("cpu", "cuda"))

    return make


#: What a gradient can be divided by; zeros, as outside a mask, do not count.
SIZES = ("mean", "max", "std")
#: Keeps a gradient of zero from being divided by zero.
TINY = 1e-12


def normalized(lr: float, *, by: str = "mean") -> OptimizerFactory:
    """Return plain gradient steps of the same size for every sample: lr g / (size of g).

    ``by`` is that size: the mean of |g|, its largest value, or the standard deviation of g.
    DeepDream's update. [Mordvintsev2015]_

    Raises
    ------
    FeatvizError
        If there is no such size.
    """
    if by not in SIZES:
        raise FeatvizError(f"no normalization {by!r}: it is {', '.join(SIZES)}")
    return functools.partial(_Normalized, lr=lr, by=by)


class _Normalized(torch.optim.Optimizer):
    def __init__(self, leaves: list[Tensor], lr: float, by: str) -> None:
        super().__init__(leaves, {"lr": lr, "by": by})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for leaf in group["params"]:
                if leaf.grad is not None:
                    size = _size(leaf.grad, group["by"]).add_(TINY)
                    leaf.addcdiv_(leaf.grad, size, value=-group["lr"])
        return loss


def _size(gradient: Tensor, by: str) -> Tensor:
    """Return the size of each sample's gradient (B, 1, …), without a copy of the gradient."""
    flat = gradient.flatten(1)
    count = flat.count_nonzero(1).clamp_min(1)
    if by == "max":
        size = torch.linalg.vector_norm(flat, math.inf, dim=1)
    elif by == "mean":
        size = torch.linalg.vector_norm(flat, 1, dim=1) / count
    else:
        energy = torch.linalg.vector_norm(flat, dim=1).square() / count
        size = (energy - (flat.sum(1) / count).square()).clamp_min(0).sqrt()
    return size.view(-1, *(1,) * (gradient.ndim - 1))


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Let the learning rate fall along half a cosine, from 1 to ``end``."""

    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * progress)) / 2


class SampleAscent(torch.optim.Optimizer, abc.ABC):
    """An optimizer that moves each sample by itself, uphill, as attacks do.

    ``rate`` is the length of a step, a number or one a sample (B,); a schedule multiplies it.
    The loop sets ``scores`` (B,), those of the state that the step starts from.
    """

    scores: Tensor

    def __init__(self, leaves: list[Tensor], rate: float | Tensor) -> None:
        super().__init__(leaves, {"lr": 1.0})
        self.rate = torch.as_tensor(rate, dtype=torch.float32, device=leaves[0].device)

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Evaluate the scores and gradients, then move every leaf."""
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for leaf in group["params"]:
                    rate = (self.rate * group["lr"]).reshape(-1, *(1,) * (leaf.ndim - 1))
                    self.move_(leaf, -leaf.grad, rate)
        return loss

    @abc.abstractmethod
    def move_(self, leaf: Tensor, gradient: Tensor, rate: Tensor) -> None:
        """Move ``leaf`` (B, …) in place; ``rate`` (B or 1, 1, …) broadcasts to it."""


__all__ = ["Cosine", "adam", "default_rate", "normalized"]
