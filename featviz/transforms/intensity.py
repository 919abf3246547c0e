"""Transforms of the values: noise."""

from __future__ import annotations

import dataclasses
import functools
import math

import torch

from featviz.errors import FeatvizError
from featviz.transforms.base import Apply, Intensity
from featviz.types import Tensor

#: Normal numbers to cut noise from: 16 MiB, 28 times a picture of 224 px.
_LENGTH = 1 << 22
_GOLDEN = (math.sqrt(5) - 1) / 2


@functools.lru_cache(maxsize=2)
def _bank(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(_LENGTH)
    return torch.randn(_LENGTH, generator=generator).to(device)


@dataclasses.dataclass(frozen=True)
class Noise(Intensity):
    """Add Gaussian noise of deviation ``sd`` (in image units) to every pixel and channel.

    The noise of a sample and step is a stretch of one long fixed row of normal numbers, and the
    tape says where it starts: drawn on the CPU, equal on every device, and it costs a copy.
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
            bank = _bank(images.device)
            starts = tape[step, :, 0].tolist()  # a tensor of the CPU
            noise = torch.stack([_stretch(bank, start, count) for start in starts])
            noise = noise.reshape(images.shape).to(images.dtype)
            return images.add(noise, alpha=self.sd)

        return apply


def _stretch(bank: Tensor, start: float, count: int) -> Tensor:
    """Return ``count`` numbers of the bank from a share ``start`` on; long ones in pieces."""
    piece = min(count, len(bank) // 2)
    room = len(bank) - piece
    parts = []
    for k in range(-(-count // piece)):
        begin = int((start + k * _GOLDEN) % 1 * room)  # successive pieces lie far apart
        parts.append(bank[begin : begin + min(piece, count - k * piece)])
    return parts[0] if len(parts) == 1 else torch.cat(parts)
