"""Jitter, rotation, scaling, padding and cropping, fused into one resampling by kornia."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import kornia.geometry.transform as kornia_transform
import torch

from featviz.errors import FeatvizError
from featviz.transforms.base import Apply, Geometric
from featviz.transforms.surroundings import RANDOM_FILLS, onto_background
from featviz.types import Tensor
from featviz.validation import LARGEST, real

FILLS = ("reflection", "border", "gray", *RANDOM_FILLS)


def _uniform(generator: torch.Generator, steps: int, count: int) -> Tensor:
    return torch.rand(steps, count, generator=generator) * 2 - 1


def _in_pixels(amount: float, side: int) -> float:
    """Return an amount in pixels; below 1 it is a fraction of the side."""
    return amount * side if abs(amount) < 1 else amount


def _identity(tape: Tensor, axes: int) -> Tensor:
    return torch.eye(axes + 1).expand(*tape.shape[:-1], axes + 1, axes + 1).clone()


@dataclasses.dataclass(frozen=True)
class Jitter(Geometric):
    """Shift each axis by up to ``amount``: pixels, or a fraction of the side if below 1."""

    amount: float = 0.05

    def __post_init__(self) -> None:
        real("jitter", self.amount, 0, LARGEST)

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        limits = torch.tensor([_in_pixels(self.amount, side) for side in reversed(size)])
        return _uniform(generator, steps, len(size)) * limits

    def matrices(self, tape: Tensor, size: tuple[int, ...]) -> Tensor:
        matrix = _identity(tape, len(size))
        matrix[..., :-1, -1] = tape
        return matrix


@dataclasses.dataclass(frozen=True)
class Rotate(Geometric):
    """Rotate about the centre by up to ``degrees`` in either direction; images (H, W) only."""

    degrees: float = 15.0

    def __post_init__(self) -> None:
        real("rotate", self.degrees, -360, 360)

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        if len(size) != 2:
            raise FeatvizError(f"rotate takes images (H, W), not size {size}")
        return _uniform(generator, steps, 1) * math.radians(self.degrees)

    def matrices(self, tape: Tensor, size: tuple[int, ...]) -> Tensor:
        matrix = _identity(tape, 2)
        cos, sin = tape[..., 0].cos(), tape[..., 0].sin()
        matrix[..., 0, 0], matrix[..., 0, 1] = cos, -sin
        matrix[..., 1, 0], matrix[..., 1, 1] = sin, cos
        return matrix


@dataclasses.dataclass(frozen=True)
class Scale(Geometric):
    """Scale about the centre by a factor drawn uniformly from ``low`` to ``high``."""

    low: float = 0.8
    high: float = 1.2

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high <= LARGEST:
            raise FeatvizError(
                f"scale needs 0 < low <= high <= {LARGEST:g}, not {self.low} and {self.high}"
            )

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        fraction = torch.rand(steps, 1, generator=generator)
        return self.low + (self.high - self.low) * fraction

    def matrices(self, tape: Tensor, size: tuple[int, ...]) -> Tensor:
        matrix = _identity(tape, len(size))
        for axis in range(len(size)):
            matrix[..., axis, axis] = tape[..., 0]
        return matrix


@dataclasses.dataclass(frozen=True)
class Pad(Geometric):
    """Add ``amount`` (pixels, or a fraction of the side if below 1) on every side.

    ``fill`` defines the values outside the image for the whole warp: ``reflection`` (also without a
    pad), ``border``, ``gray`` (0.5, as in lucid), ``spots``: soft blobs of random colours, drawn
    anew for each sample and step, or ``blur``: the reflection, reduced to a few cells, with such
    spots added. The last two neither complete an object at the border by its mirror image nor
    reward a frame, and ``blur`` continues the colours.
    """

    amount: float = 12
    fill: str = "reflection"

    def __post_init__(self) -> None:
        real("pad", self.amount, 0, LARGEST)
        if self.fill not in FILLS:
            raise FeatvizError(f"no fill {self.fill!r}; known: {', '.join(FILLS)}")

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        if self.fill in RANDOM_FILLS:
            return torch.rand(steps, 1, generator=generator, dtype=torch.float64)
        return torch.zeros(steps, 0)

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(side + 2 * round(_in_pixels(self.amount, side)) for side in size)

    def matrices(self, tape: Tensor, size: tuple[int, ...]) -> Tensor:
        return _identity(tape, len(size))  # coordinates are relative to the centre


@dataclasses.dataclass(frozen=True)
class Crop(Geometric):
    """Keep the central ``side`` (pixels, or a fraction of each side if at most 1).

    By whole pixels: where an odd number of them goes, one more goes at the end.

    After a jitter the network sees a different part at every step; smaller crops cost less.
    """

    side: float = 0.75

    def __post_init__(self) -> None:
        real("crop", self.side, 0, LARGEST, above=True)

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        return torch.zeros(steps, 0)

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        sides = [self.side * side if self.side <= 1 else self.side for side in size]
        if any(s > side for s, side in zip(sides, size, strict=True)):
            raise FeatvizError(f"cannot crop {self.side} pixels of an image of size {size}")
        return tuple(max(1, round(s)) for s in sides)

    def matrices(self, tape: Tensor, size: tuple[int, ...]) -> Tensor:
        # Coordinates are relative to the centre. Where the sides differ by an odd number, half a
        # pixel moves the crop onto whole pixels, so that nothing is interpolated.
        matrices = _identity(tape, len(size))
        output = self.output_size(size)
        odd = [(side - kept) % 2 / 2 for side, kept in zip(size, output, strict=True)]
        matrices[..., :-1, -1] += torch.tensor(odd[::-1])
        return matrices


def fusible(group: Sequence[Geometric], transform: Geometric) -> bool:
    """Return whether a warp can include one more transform: it can have only one fill."""
    fills = {t.fill for t in (*group, transform) if isinstance(t, Pad)}
    return len(fills) < 2


def warp(
    group: Sequence[tuple[Geometric, Tensor]], size: tuple[int, ...], device: torch.device
) -> Apply:
    """Return the map that applies the transforms of a group in sequence, by one linear resampling.

    ``group`` pairs transforms with their tapes (steps, B, k); ``size`` is the input size.
    """
    axes = len(size)
    fill = next((t.fill for t, _ in group if isinstance(t, Pad)), "reflection")
    starts = next(
        (tape[..., 0] for t, tape in group if isinstance(t, Pad) and fill in RANDOM_FILLS), None
    )
    composed = torch.eye(axes + 1)
    output = size
    for transform, tape in group:
        composed = transform.matrices(tape, output) @ composed
        output = transform.output_size(output)
    # From coordinates relative to the centre to kornia's, relative to the first pixel.
    to_centre, from_centre = torch.eye(axes + 1), torch.eye(axes + 1)
    to_centre[:-1, -1] = -(torch.tensor(size[::-1]) - 1) / 2
    from_centre[:-1, -1] = (torch.tensor(output[::-1]) - 1) / 2
    matrices = (from_centre @ composed @ to_centre)[..., :-1, :].to(device)

    def apply(images: Tensor, step: int) -> Tensor:
        matrix = matrices[step].to(images.dtype)
        if starts is not None:
            return onto_background(images, matrix, output, starts[step], fill)
        mode = "fill" if fill == "gray" else fill
        if axes == 2:
            gray = images.new_full((images.shape[1],), 0.5) if mode == "fill" else None
            return kornia_transform.warp_affine(
                images,
                matrix,
                (output[0], output[1]),
                padding_mode=mode,
                align_corners=True,
                fill_value=gray,
            )
        return _warp_other(images, matrix, output, mode)

    return apply


def _warp_other(images: Tensor, matrix: Tensor, out: tuple[int, ...], mode: str) -> Tensor:
    """Warp signals (to kornia, an image of one row) and volumes."""
    if mode == "fill":
        raise FeatvizError("pad with gray fill takes images (H, W); use fill=border")
    if len(out) == 1:
        flat = torch.zeros(len(matrix), 2, 3, dtype=matrix.dtype, device=matrix.device)
        flat[:, 0, 0], flat[:, 0, 2], flat[:, 1, 1] = matrix[:, 0, 0], matrix[:, 0, 1], 1
        rows = images.unsqueeze(2).expand(-1, -1, 2, -1)  # kornia needs two rows to normalize
        warped = kornia_transform.warp_affine(
            rows, flat, (2, *out), padding_mode=mode, align_corners=True
        )
        return warped[:, :, 0]
    if len(out) == 3:
        return kornia_transform.warp_affine3d(
            images, matrix, out, padding_mode=mode, align_corners=True
        )
    raise FeatvizError(f"geometric transforms take 1 to 3 spatial axes, not {len(out)}")
