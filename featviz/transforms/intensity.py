"""Transforms without resampling: noise, cyclic shifts, backgrounds of transparent images."""

from __future__ import annotations

import dataclasses
import math

import torch

from featviz.errors import FeatvizError
from featviz.transforms.base import Apply, Intensity
from featviz.transforms.random_fields import normal_fields, spots
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class Noise(Intensity):
    """Add Gaussian noise of standard deviation ``sd`` (in image units) to every pixel and channel.

    The noise of a sample and step is a slice of one long, fixed sequence of normal numbers, which
    starts where the tape says: it is drawn on the CPU, equal on every device, and costs a copy.
    """

    sd: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.sd < math.inf:
            raise FeatvizError(f"noise must not be negative, not {self.sd}")

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        return torch.rand(steps, 1, generator=generator, dtype=torch.float64)

    def prepare(self, tape: Tensor) -> Apply:
        def apply(images: Tensor, step: int) -> Tensor:
            noise = normal_fields(tape[step, :, 0], tuple(images.shape[1:]), images)
            return images.add(noise, alpha=self.sd)

        return apply


@dataclasses.dataclass(frozen=True)
class Roll(Intensity):
    """Shift each axis cyclically by up to ``amount`` whole pixels.

    ``amount`` below 1 is a fraction of the side. Values do not change: nothing is resampled.
    """

    amount: float = 32

    def __post_init__(self) -> None:
        if not 0 <= self.amount < math.inf:
            raise FeatvizError(f"roll must not be negative, not {self.amount}")

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
        if not 0 <= self.sd < math.inf:
            raise FeatvizError(f"background: sd must not be negative, not {self.sd}")
        if not 1 <= self.cells < math.inf:
            raise FeatvizError(f"background: cells must be positive, not {self.cells}")

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        return torch.rand(steps, 1, generator=generator, dtype=torch.float64)

    def prepare(self, tape: Tensor) -> Apply:
        def apply(images: Tensor, step: int) -> Tensor:
            colours, opacity = images[:, :-1], images[:, -1:]
            background = spots(
                tape[step, :, 0],
                colours.shape[1],
                tuple(images.shape[2:]),
                images,
                sd=self.sd,
                cells=int(self.cells),
            )
            return background.lerp(colours, opacity)

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
