"""Paste a small image somewhere onto others: the conditions that a printed patch has to survive."""

from __future__ import annotations

import dataclasses
import math

import kornia.geometry.transform as kornia_transform
import torch

from featviz.errors import FeatvizError
from featviz.transforms.base import Apply, Intensity
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class Paste(Intensity):
    """Paste patches (B, C, h, w) onto ``images`` (B, C, H, W), each where its tape says.

    Rotated by up to ``degrees`` in either direction, scaled by ``low`` to ``high``, and anywhere
    inside the image as a whole. With ``choose`` the image is also drawn from ``images`` each time,
    and there may be more of them than patches. [Brown2017]_
    """

    images: Tensor = dataclasses.field(compare=False, repr=False)
    degrees: float = 20.0
    low: float = 0.9
    high: float = 1.1
    choose: bool = False

    def __post_init__(self) -> None:
        if self.images.ndim != 4:
            raise FeatvizError(
                f"a patch is pasted onto images (B, C, H, W), not {self.images.ndim} axes"
            )
        if not 0 < self.low <= self.high < math.inf:
            raise FeatvizError(f"scale needs 0 < low <= high, not {self.low} and {self.high}")

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        placements = torch.cat([torch.rand(steps, 4, generator=generator), _sides(steps, size)], 1)
        if not self.choose:
            return placements
        choices = torch.randint(len(self.images), (steps, 1), generator=generator)
        return torch.cat([placements, choices], 1)

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.images.shape[2:])

    def placements(self, tape: Tensor) -> Tensor:
        """Return the maps (…, 2, 3) from pixels of a patch to those of the image, x first."""
        right, down, turn, growth, height, width = tape[..., :6].unbind(-1)
        angle = (2 * turn - 1) * math.radians(self.degrees)
        scale = self.low + (self.high - self.low) * growth
        cos, sin = scale * angle.cos(), scale * angle.sin()
        rows, columns = self.images.shape[2:]
        # Half the bounding box of the rotated patch; if it exceeds the image, the patch is centred.
        half_x = (cos.abs() * width + sin.abs() * height) / 2
        half_y = (sin.abs() * width + cos.abs() * height) / 2
        x = half_x.clamp_max(columns / 2) + right * (columns - 2 * half_x).clamp_min(0) - 0.5
        y = half_y.clamp_max(rows / 2) + down * (rows - 2 * half_y).clamp_min(0) - 0.5
        middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
        first = torch.stack([cos, -sin, x - cos * middle_x + sin * middle_y], -1)
        second = torch.stack([sin, cos, y - sin * middle_x - cos * middle_y], -1)
        return torch.stack([first, second], -2)

    def chosen(self, tape: Tensor) -> Tensor:
        """Return the index of the image that each patch is pasted onto, if drawn, (…)."""
        return tape[..., 6].long()

    def prepare(self, tape: Tensor) -> Apply:
        matrices = self.placements(tape)
        choices = self.chosen(tape) if self.choose else None

        def apply(patches: Tensor, step: int) -> Tensor:
            images = self.images if choices is None else self.images[choices[step]]
            return paste(patches, images, matrices[step])

        return apply


def paste(patches: Tensor, images: Tensor, matrix: Tensor) -> Tensor:
    """Paste patches (B, C, h, w) onto images (B, C, H, W) by maps (B, 2, 3) of their pixels."""
    images = images.to(patches)
    with_opacity = torch.cat([patches, torch.ones_like(patches[:, :1])], 1)
    size = (images.shape[2], images.shape[3])
    warped = kornia_transform.warp_affine(
        with_opacity, matrix.to(patches), size, padding_mode="zeros", align_corners=True
    )
    return images * (1 - warped[:, -1:]) + warped[:, :-1]


def _sides(steps: int, size: tuple[int, ...]) -> Tensor:
    return torch.tensor(size, dtype=torch.float32).expand(steps, len(size))
