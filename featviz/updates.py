"""How the free parameters move: the default optimizer and learning-rate schedules."""

from __future__ import annotations

import dataclasses
import math

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
