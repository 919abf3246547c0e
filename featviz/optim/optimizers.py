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


def adam(lr: float, *, weight_decay: float = 0.0) -> OptimizerFactory:
    """Return Adam with learning rate ``lr``, fused on devices that support it.

    With ``weight_decay``, every parameter loses the fraction lr · weight_decay in each step
    [Loshchilov2019]_. Adam alone moves each by about ``lr`` a step, also where gradients are noise;
    what no gradient sustains vanishes then, and nothing grows beyond 1 / weight_decay.
    """

    def make(leaves: list[Tensor]) -> torch.optim.Optimizer:
        fused = leaves[0].device.type in ("cpu", "cuda")
        if weight_decay:
            return torch.optim.AdamW(leaves, lr=lr, weight_decay=weight_decay, fused=fused)
        return torch.optim.Adam(leaves, lr=lr, fused=fused)

    return make


#: Statistics that a gradient can be divided by; zeros, as outside a mask, are not counted.
SIZES = ("mean", "max", "std")
#: Avoids division by zero.
TINY = 1e-12
#: Rate and decay of the normalized gradient steps that signals are optimized with by default.
SIGNAL_RATE, SIGNAL_SHRINKAGE = 0.2, 0.1


def normalized(lr: float, *, by: str = "mean", decay: float = 0.0) -> OptimizerFactory:
    """Return gradient steps of normalized size, lr g / size(g), per sample: DeepDream's update.

    ``by`` selects the size: the mean of |g|, its maximum, or the standard deviation of g.
    [Mordvintsev2015]_ ``decay`` is the fraction of every parameter that goes in each step (a
    schedule scales it like the rate), so that only what the gradient sustains remains.

    Unlike Adam, which moves every parameter by about ``lr`` in every step, this leaves parameters
    that hardly matter where they are: a spectrum has no floor of noise.

    Raises
    ------
    FeatvizError
        If ``by`` is unknown, or ``lr`` or ``decay`` out of range.
    """
    if by not in SIZES:
        raise FeatvizError(f"no normalization {by!r}: use {', '.join(SIZES)}")
    if not (0 < lr < math.inf and 0 <= decay < 1):
        raise FeatvizError(f"normalized needs lr > 0 and 0 <= decay < 1, not {lr} and {decay}")
    return functools.partial(_Normalized, lr=lr, by=by, decay=decay)


class _Normalized(torch.optim.Optimizer):
    def __init__(self, leaves: list[Tensor], lr: float, by: str, decay: float) -> None:
        super().__init__(leaves, {"lr": lr, "by": by, "shrink": decay / lr})

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
                    if group["shrink"]:
                        leaf.mul_(1 - group["lr"] * group["shrink"])
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
    """Cosine decay of the learning rate, from a factor of 1 to ``end``.

    It begins when the fraction ``flat`` of the steps is done.
    """

    end: float = 0.0
    flat: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.flat < 1:
            raise FeatvizError(f"flat must be at least 0 and below 1, not {self.flat}")

    def __call__(self, progress: float) -> float:
        share = max(progress - self.flat, 0) / (1 - self.flat)
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * share)) / 2


#: Named learning-rate schedules.
SCHEDULES: dict[str, Schedule | None] = {
    "constant": None,
    "cosine": Cosine(),
    "flat_cosine": Cosine(flat=0.5),
}


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


def default_optimizer(fourier: bool, size: tuple[int, ...]) -> str:
    """Return the name of the optimizer that is used unless another is given.

    Adam moves every parameter by about the same amount in each step, so that the frequencies of a
    signal that hardly matter become noise: its Fourier basis, which has no decay either, gets
    normalized gradient steps.
    """
    return "normalized" if fourier and len(size) == 1 else "adam"


def named_optimizer(name: str, lr: float, weight_decay: float) -> OptimizerFactory:
    """Return one of the optimizers that :func:`default_optimizer` names.

    In each step a parameter loses the fraction lr · weight_decay.
    """
    if name == "adam":
        return adam(lr, weight_decay=weight_decay)
    return normalized(lr, by="std", decay=lr * weight_decay)


def optimizer_with_rate(optimizer: OptimizerFactory, lr: float | None) -> OptimizerFactory:
    """Return an optimizer with a learning rate, if there is one.

    Raises
    ------
    FeatvizError
        If it is no optimizer, or sets its own rate.
    """
    if not callable(optimizer):
        raise FeatvizError("optimizer must be a torch.optim class or a function of the parameters")
    if lr is None:
        return optimizer
    if not isinstance(optimizer, type):
        raise FeatvizError("lr needs a torch.optim class; an optimizer function sets its own")
    return functools.partial(optimizer, lr=lr)


__all__ = ["Cosine", "adam", "default_rate", "find_schedule", "normalized"]
