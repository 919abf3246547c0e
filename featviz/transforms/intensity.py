"""Transforms without resampling: noise, cyclic shifts, backgrounds of transparent images."""

from __future__ import annotations

import dataclasses
import functools
import math

import torch

from featviz.resample import resize
from featviz.transforms.base import Apply, Intensity
from featviz.types import Tensor
from featviz.validation import LARGEST, real

#: Normal numbers that noise is sliced from: 16 MiB, 28 times an image of 224 px.
_BANK_SIZE = 1 << 22
_GOLDEN = (math.sqrt(5) - 1) / 2


@functools.lru_cache(maxsize=2)
def _bank(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(_BANK_SIZE)
    return torch.randn(_BANK_SIZE, generator=generator).to(device)


@dataclasses.dataclass(frozen=True)
class Noise(Intensity):
    """Add Gaussian noise of standard deviation ``sd`` (in image units) to every pixel and channel.

    The noise of a sample and step is a slice of one long, fixed sequence of normal numbers, which
    starts where the tape says: it is drawn on the CPU, equal on every device, and costs a copy.
    """

    sd: float = 0.1

    def __post_init__(self) -> None:
        real("noise", self.sd, 0, LARGEST)

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        return torch.rand(steps, 1, generator=generator, dtype=torch.float64)

    def prepare(self, tape: Tensor) -> Apply:
        def apply(images: Tensor, step: int) -> Tensor:
            noise = _normal(tape[step, :, 0], tuple(images.shape[1:]), images)
            return images.add(noise, alpha=self.sd)

        return apply


@dataclasses.dataclass(frozen=True)
class Roll(Intensity):
    """Shift each axis cyclically by up to ``amount`` whole pixels.

    ``amount`` below 1 is a fraction of the side. Values do not change: nothing is resampled.
    """

    amount: float = 32

    def __post_init__(self) -> None:
        real("roll", self.amount, 0, LARGEST)

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        is_fraction = self.amount < 1
        limits = [int(self.amount * side) if is_fraction else round(self.amount) for side in size]
        limit = torch.tensor(limits)
        uniform = torch.rand(steps, len(size), generator=generator)
        # Rounding may reach the full width, which is one pixel too far.
        return ((uniform * (2 * limit + 1)).floor() - limit).minimum(limit)

    def prepare(self, tape: Tensor) -> Apply:
        def apply(images: Tensor, step: int) -> Tensor:
            axes = tuple(range(-tape.shape[2], 0))
            shifts = tape[step].int().tolist()
            if len(shifts) == 1:  # large images come one at a time: avoid a copy
                return images.roll(shifts[0], axes)
            pairs = zip(images, shifts, strict=True)
            return torch.stack([image.roll(shift, axes) for image, shift in pairs])

        return apply


@dataclasses.dataclass(frozen=True)
class Background(Intensity):
    """Composite transparent images onto random ones: ``cells`` soft blobs of colour per side.

    Takes (B, C + 1, *size), the last channel the opacity, and returns (B, C, *size). The blobs are
    normal about mid-gray with standard deviation ``sd``, clipped to [0, 1].
    """

    sd: float = 0.5
    cells: float = 6

    def __post_init__(self) -> None:
        real("background: sd", self.sd, 0, LARGEST)
        real("background: cells", self.cells, 1, LARGEST)

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        return torch.rand(steps, 1, generator=generator, dtype=torch.float64)

    def prepare(self, tape: Tensor) -> Apply:
        def apply(images: Tensor, step: int) -> Tensor:
            colours, opacity = images[:, :-1], images[:, -1:]
            size = tuple(images.shape[2:])
            grid = (colours.shape[1], *(min(int(self.cells), side) for side in size))
            blobs = _normal(tape[step, :, 0], grid, images).mul(self.sd).add(0.5).clamp(0, 1)
            return resize(blobs, size).lerp(colours, opacity)

        return apply


@dataclasses.dataclass(frozen=True)
class Backdrop(Intensity):
    """Composite transparent images onto given ones, (1 or B, C, *size), the same at every step.

    Takes (B, C + 1, *size), the last channel the opacity, and returns (B, C, *size).
    """

    images: Tensor = dataclasses.field(compare=False, repr=False)

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        return torch.zeros(steps, 0)  # nothing is drawn

    def prepare(self, tape: Tensor) -> Apply:
        def apply(images: Tensor, step: int) -> Tensor:
            colours, opacity = images[:, :-1], images[:, -1:]
            return self.images.to(colours).lerp(colours, opacity)

        return apply


def _normal(starts: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return normal numbers (B, *shape), for each sample those at its start in the bank."""
    bank, count = _bank(like.device), math.prod(shape)
    # The tape is on the CPU: reading it does not wait for a device.
    noise = torch.stack([_bank_slice(bank, start, count) for start in starts.tolist()])
    return noise.reshape(-1, *shape).to(like.dtype)


def _bank_slice(bank: Tensor, start: float, count: int) -> Tensor:
    """Return ``count`` numbers of the bank from a fraction ``start`` on, long slices in pieces."""
    piece = min(count, len(bank) // 2)
    last_start = len(bank) - piece
    parts = []
    for k in range(-(-count // piece)):
        begin = int((start + k * _GOLDEN) % 1 * last_start)  # successive pieces are far apart
        parts.append(bank[begin : begin + min(piece, count - k * piece)])
    return parts[0] if len(parts) == 1 else torch.cat(parts)
