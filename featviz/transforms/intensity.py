"""Transforms without resampling: noise, whole shifts, what lies behind a transparent picture."""

from __future__ import annotations

import dataclasses
import functools
import math

import torch

from featviz.errors import FeatvizError
from featviz.resample import resize
from featviz.transforms.base import Apply, Intensity
from featviz.types import Tensor

#: Normal numbers to cut noise from: 16 MiB, 28 times an image of 224 px.
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
            noise = _normal(tape[step, :, 0], tuple(images.shape[1:]), images)
            return images.add(noise, alpha=self.sd)

        return apply


@dataclasses.dataclass(frozen=True)
class Roll(Intensity):
    """Shift each axis by up to ``amount`` whole pixels; what leaves at one end enters at the other.

    ``amount`` below 1 is a fraction of the side. No value changes: nothing is resampled.
    """

    amount: float = 32

    def __post_init__(self) -> None:
        if not 0 <= self.amount < math.inf:
            raise FeatvizError(f"roll must not be negative, not {self.amount}")

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        share = self.amount < 1
        reach = [int(self.amount * side) if share else round(self.amount) for side in size]
        most = torch.tensor(reach)
        drawn = torch.rand(steps, len(size), generator=generator)
        # Rounding may reach 1 times the width, which is one pixel too far.
        return ((drawn * (2 * most + 1)).floor() - most).minimum(most)

    def prepare(self, tape: Tensor) -> Apply:
        def apply(images: Tensor, step: int) -> Tensor:
            axes = tuple(range(-tape.shape[2], 0))
            shifts = tape[step].int().tolist()
            if len(shifts) == 1:  # large images come alone: one copy less
                return images.roll(shifts[0], axes)
            pairs = zip(images, shifts, strict=True)
            return torch.stack([image.roll(shift, axes) for image, shift in pairs])

        return apply


@dataclasses.dataclass(frozen=True)
class Background(Intensity):
    """Lay transparent images on random ones: ``cells`` soft spots of colour along each side.

    Takes (B, C + 1, *size), the last channel the opacity, and gives (B, C, *size). The spots
    are normal about middle gray with deviation ``sd``, clipped to [0, 1].
    """

    sd: float = 0.5
    cells: float = 6

    def __post_init__(self) -> None:
        if not 0 <= self.sd < math.inf:
            raise FeatvizError(f"background: sd must not be negative, not {self.sd}")
        if not 1 <= self.cells < math.inf:
            raise FeatvizError(f"background: cells must be positive, not {self.cells}")

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        return torch.rand(steps, 1, generator=generator, dtype=torch.float64)

    def prepare(self, tape: Tensor) -> Apply:
        def apply(images: Tensor, step: int) -> Tensor:
            colours, opacity = images[:, :-1], images[:, -1:]
            size = tuple(images.shape[2:])
            coarse = (colours.shape[1], *(min(int(self.cells), side) for side in size))
            spots = _normal(tape[step, :, 0], coarse, images).mul(self.sd).add(0.5).clamp(0, 1)
            return resize(spots, size).lerp(colours, opacity)

        return apply


@dataclasses.dataclass(frozen=True)
class Backdrop(Intensity):
    """Lay transparent images on given ones, (1 or B, C, *size), the same at every step.

    Takes (B, C + 1, *size), the last channel the opacity, and gives (B, C, *size).
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
    """Return normal numbers (B, *shape): for each sample those that its start tells."""
    bank, count = _bank(like.device), math.prod(shape)
    # The tape is a tensor of the CPU: reading it waits for no device.
    noise = torch.stack([_stretch(bank, start, count) for start in starts.tolist()])
    return noise.reshape(-1, *shape).to(like.dtype)


def _stretch(bank: Tensor, start: float, count: int) -> Tensor:
    """Return ``count`` numbers of the bank from a share ``start`` on; long ones in pieces."""
    piece = min(count, len(bank) // 2)
    room = len(bank) - piece
    parts = []
    for k in range(-(-count // piece)):
        begin = int((start + k * _GOLDEN) % 1 * room)  # successive pieces lie far apart
        parts.append(bank[begin : begin + min(piece, count - k * piece)])
    return parts[0] if len(parts) == 1 else torch.cat(parts)
