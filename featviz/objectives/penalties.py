"""Penalties: how rough, large or complex an image or an activation is, to be subtracted.

Each returns the measure itself, so a penalty is ``- 1e-3 * total_variation()``. They read the
clean image (``image``) unless another layer is named; ``input`` is the transformed image.
"""

from __future__ import annotations

import dataclasses

import torch
from torch.nn import functional as F

from featviz.errors import UnitError
from featviz.objectives.base import Objective
from featviz.objectives.reduction import EPSILON
from featviz.objectives.scene import IMAGE, Scene, Score, Target
from featviz.objectives.unit import Unit, real, whole, word
from featviz.types import Tensor


def sum_per_sample(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


def spatial_axes(unit: Unit, target: Target) -> int:
    """Return the number of spatial axes of the layer; raise if there are none."""
    info = target.layer(unit.layer)
    if info.axis != 1 or not info.positions:
        raise UnitError(f"{unit.kind} needs maps (B, C, *spatial), not layer {info.name!r}")
    return len(info.positions)


def smooth(values: Tensor) -> Tensor:
    """Blur (B, C, *spatial) by the mean of each 3-wide neighbourhood, with replicated edges."""
    axes = values.ndim - 2
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
    return pool(F.pad(values, (1, 1) * axes, mode="replicate"), 3, 1)


@dataclasses.dataclass(frozen=True, repr=False)
class L1(Unit):
    """See :func:`l1`."""

    kind = "l1"
    layer: str = word(IMAGE)
    constant: float = real(0.0)

    def bind(self, target: Target) -> Score:
        target.layer(self.layer)
        return lambda scene: sum_per_sample((scene[self.layer] - self.constant).abs())


@dataclasses.dataclass(frozen=True, repr=False)
class L2(Unit):
    """See :func:`l2`."""

    kind = "l2"
    layer: str = word(IMAGE)
    constant: float = real(0.0)

    def bind(self, target: Target) -> Score:
        target.layer(self.layer)

        def score(scene: Scene) -> Tensor:
            return (sum_per_sample((scene[self.layer] - self.constant).square()) + EPSILON).sqrt()

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class Blur(Unit):
    """See :func:`blur`."""

    kind = "blur"
    layer: str = word(IMAGE)

    def bind(self, target: Target) -> Score:
        spatial_axes(self, target)

        def score(scene: Scene) -> Tensor:
            values = scene[self.layer]
            return sum_per_sample((values - smooth(values).detach()).square()) / 2

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class BoundaryComplexity(Unit):
    """See :func:`boundary_complexity`."""

    kind = "boundary_complexity"
    layer: str = word(IMAGE)
    width: int = whole(20)
    constant: float = real(0.5)

    def bind(self, target: Target) -> Score:
        spatial_axes(self, target)
        sizes = target.layer(self.layer).positions
        if self.width < 1:
            raise UnitError(f"boundary_complexity: width must be positive, not {self.width}")
        border = torch.ones(sizes)
        border[tuple(slice(self.width, max(s - self.width, self.width)) for s in sizes)] = 0
        border = border.to(target.device)

        def score(scene: Scene) -> Tensor:
            values = scene[self.layer]
            roughness = (smooth(values) - values).square()
            return sum_per_sample((roughness + 0.8 * (values - self.constant).square()) * border)

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class Spectrum(Unit):
    """See :func:`spectrum`."""

    kind = "spectrum"
    layer: str = word(IMAGE)
    power: float = real(1.0)

    def bind(self, target: Target) -> Score:
        axes = spatial_axes(self, target)
        if self.power < 0:
            raise UnitError(f"spectrum needs power >= 0, not {self.power}")
        sizes = target.layer(self.layer).positions
        grid = torch.meshgrid(*(torch.fft.fftfreq(n) for n in sizes), indexing="ij")
        weight = torch.stack(grid).square().sum(0).sqrt() ** (2 * self.power)
        weight = weight.to(target.device)

        def score(scene: Scene) -> Tensor:
            values = scene[self.layer]
            amplitude = torch.fft.fftn(values, dim=tuple(range(-axes, 0)), norm="ortho")
            return sum_per_sample(torch.view_as_real(amplitude).square().sum(-1) * weight)

        return score


def l1(constant: float = 0, *, layer: str = IMAGE) -> Objective:
    """Return the sum of |x - constant|; on a layer, over the activations of all its units."""
    return L1(layer, float(constant))


def l2(constant: float = 0, *, layer: str = IMAGE) -> Objective:
    """Return the square root of the sum of (x - constant)^2; in an image, 0.5 is gray."""
    return L2(layer, float(constant))


def blur(*, layer: str = IMAGE) -> Objective:
    """Return half the squared distance from the blurred image, which is treated as constant.

    Subtracting it moves each pixel towards the mean of its 3-wide neighbourhood. [Olah2017]_
    """
    return Blur(layer)


def boundary_complexity(*, width: int = 20, constant: float = 0.5, layer: str = IMAGE) -> Objective:
    """Return the complexity within ``width`` pixels of the border, as penalized by lucid.

    The sum of (blurred - x)^2 + 0.8 (x - constant)^2 there. [Olah2017]_
    """
    return BoundaryComplexity(layer, width, float(constant))


def spectrum(power: float = 1, *, layer: str = IMAGE) -> Objective:
    """Return the spectral energy at frequencies f (cycles per pixel), weighted by f^(2 power).

    With power 1 this is, up to a factor, the energy of the gradient; higher powers weight high
    frequencies more. The Fourier transform is orthonormal.
    """
    return Spectrum(layer, float(power))
