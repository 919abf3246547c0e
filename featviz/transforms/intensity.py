"""Transforms of the values: noise."""

from __future__ import annotations

import dataclasses
import functools
import math

import torch

from featviz.errors import FeatvizError
from featviz.transforms.base import Apply, Intensity
from featviz.types import Tensor


@functools.lru_cache(maxsize=2)
def _bank(count: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, generator=generator).to(device)


@dataclasses.dataclass(frozen=True)
class Noise(Intensity):
    """Add Gaussian noise of deviation ``sd`` (in image units) to every pixel and channel.

    The noise of a sample and step is a stretch of one long fixed row of normal numbers, and the
    tape says where it starts: drawn on the CPU, equal on every device, and it costs a copy.
    The row is at least 16 times as long as a picture.
    """

    sd: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.sd < math.inf:
            raise FeatvizError(f"noise must not be negative, not {self.sd}")

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        return torch.rand(steps, 1, generator=generator, dtype=torch.float64)

    def prepare(self, tape: Tensor) -> Apply:
        def apply(images: Tensor, step: int) -> Tensor:
            count = math.prod(images.shape[1:])
            bank = _bank(1 << max(22, math.ceil(math.log2(16 * count))), images.device)
            starts = (tape[step, :, 0] * (len(bank) - count)).long().tolist()  # a CPU tensor
            noise = torch.stack([bank[s : s + count] for s in starts]).reshape(images.shape)
            return images.add(noise.to(images.dtype), alpha=self.sd)

        return apply
