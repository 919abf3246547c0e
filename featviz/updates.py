"""How the free parameters move: the default optimizer, learning rates, what ascents share."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch

from featviz.types import OptimizerFactory, Tensor


def default_rate(steps: int) -> float:
    """Return Adam's learning rate for a run: 0.1 up to 256 steps, then falling with their number.

    The way that a free parameter can go is bounded so: more steps refine a picture instead of
    raising its contrast without end.
    """
    return 0.1 * min(1.0, 256 / steps)


def adam(lr: float) -> OptimizerFactory:
    """Return Adam with learning rate ``lr``, in one kernel where the device has one."""

    def make(leaves: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(leaves, lr=lr, fused=leaves[0].device.type in ("cpu", "cuda"))

    return make


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Let the learning rate fall along half a cosine, from 1 to ``end``."""

    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * progress)) / 2


class Ascent(torch.optim.Optimizer, abc.ABC):
    """An optimizer that moves each sample by itself, uphill; :mod:`featviz.steps` has them.

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
