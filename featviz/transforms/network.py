"""Noise in the network: transforms that change the network instead of the image."""

from __future__ import annotations

import dataclasses
import math

import torch

from featviz.errors import FeatvizError
from featviz.transforms.base import Transform


@dataclasses.dataclass(frozen=True)
class NetworkTransform(Transform):
    """A random change of the network at each step, the same for all samples.

    ``sd`` is the standard deviation of the factors about 1. The tape depends on ``seed`` alone, not
    on the seeds of the samples, so that an image is the same alone and in a batch.
    """

    sd: float
    seed: float = 0

    def __post_init__(self) -> None:
        if not 0 <= self.sd < math.inf:
            raise FeatvizError(f"network noise must not be negative, not {self.sd}")
        if self.seed != int(self.seed):
            raise FeatvizError(f"the seed of network noise must be an integer, not {self.seed}")

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> torch.Tensor:
        return torch.rand(steps, 1, generator=generator, dtype=torch.float64)


@dataclasses.dataclass(frozen=True)
class ChannelNoise(NetworkTransform):
    """Multiply each output channel of the normalization layers by 1 + sd * n, n standard normal.

    The factors act before the activation function. Networks without batch-norm get them on their
    other normalization layers; without any, on convolutions and linear layers.
    """

    sd: float = 0.07


@dataclasses.dataclass(frozen=True)
class BranchNoise(NetworkTransform):
    """Multiply each residual branch by 1 + sd * n, n standard normal."""

    sd: float = 0.2


__all__ = ["BranchNoise", "ChannelNoise", "NetworkTransform"]
