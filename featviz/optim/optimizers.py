"""Optimizers and learning-rate schedules for the free parameters."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from featviz.errors import FeatvizError, did_you_mean
from featviz.types import OptimizerFactory, Schedule, Tensor


def default_rate(steps: int, rate: float = 0.1) -> float:
    """Return Adam's default learning rate: ``rate`` for up to 256 steps, 256 rate / steps for more.

    This bounds the total distance that a free parameter can travel, so that more steps refine the
    image instead of increasing its contrast indefinitely.
    """
    return rate * min(1.0, 256 / steps)


def adam(lr: float) -> OptimizerFactory:
    """Return Adam with learning rate ``lr``, fused on devices that support it."""

    def make(leaves: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(leaves, lr=lr, fused=leaves[0].device.type in ("cpu", "cuda"))

    return make


#: Statistics that a gradient can be divided by; zeros, as outside a mask, are not counted.
SIZES = ("mean", "max", "std")
#: Avoids division by zero.
TINY = 1e-12


def normalized(lr: float, *, by: str = "mean") -> OptimizerFactory:
    """Return gradient steps of normalized size, lr g / size(g), per sample: DeepDream's update.

    ``by`` selects the size: the mean of |g|, its maximum, or the standard deviation of g.
    [Mordvintsev2015]_

    Raises
    ------
    FeatvizError
        If ``by`` is unknown.
    """
    if by not in SIZES:
        raise FeatvizError(f"no normalization {by!r}: use {', '.join(SIZES)}")
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
    """Return the size of each sample's gradient (B, 1, …), without copying the gradient."""
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
    """Cosine decay of the learning rate, from a factor of 1 to ``end``."""

    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * progress)) / 2


#: Named learning-rate schedules.
SCHEDULES: dict[str, Schedule | None] = {"constant": None, "cosine": Cosine()}


def find_schedule(schedule: Schedule | str) -> Schedule | None:
    """Return a schedule by its name; None is constant.

    Raises
    ------
    FeatvizError
        If it is neither a name nor a function.
    """
    if isinstance(schedule, str) and schedule in SCHEDULES:
        return SCHEDULES[schedule]
    if callable(schedule):
        return schedule
    hint = did_you_mean(str(schedule), SCHEDULES) or f": use {', '.join(SCHEDULES)} or a function"
    raise FeatvizError(f"no schedule {schedule!r}{hint}")


class SampleAscent(torch.optim.Optimizer, abc.ABC):
    """Base class of optimizers that ascend for each sample separately, as attacks do.

    ``rate`` is the step length, a number or one per sample (B,); a schedule multiplies it. The
    loop sets ``scores`` (B,) to those of the state before the step.
    """

    scores: Tensor

    def __init__(self, leaves: list[Tensor], rate: float | Tensor) -> None:
        super().__init__(leaves, {"lr": 1.0})
        self.rate = torch.as_tensor(rate, dtype=torch.float32, device=leaves[0].device)

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Evaluate scores and gradients, then update every leaf."""
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
        """Update ``leaf`` (B, …) in place; ``rate`` (B or 1, 1, …) broadcasts to it."""


__all__ = ["Cosine", "adam", "default_rate", "find_schedule", "normalized"]
