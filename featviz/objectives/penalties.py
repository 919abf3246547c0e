"""Measures of an image or an activation, to be subtracted: how rough, how large, how complex.

Each returns what it measures, so that a penalty is ``- 1e-3 * total_variation()``. They read the
clean image (``image``) unless another layer is named; ``input`` is the image as transformed.
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


def _total(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


def _maps(unit: Unit, target: Target) -> int:
    """Return the number of spatial axes of the layer; raise if there are none."""
    info = target.layer(unit.layer)
    if info.axis != 1 or not info.positions:
        raise UnitError(f"{unit.kind} takes maps (B, C, *spatial), not layer {info.name!r}")
    return len(info.positions)


def smooth(values: Tensor) -> Tensor:
    """Blur (B, C, *spatial) by the mean of each 3-wide neighbourhood, edges repeated."""
    axes = values.ndim - 2
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
    return pool(F.pad(values, (1, 1) * axes, mode="replicate"), 3, 1)


@dataclasses.dataclass(frozen=True, repr=False)
class TotalVariation(Unit):
    """See :func:`total_variation`."""

    kind = "total_variation"
    layer: str = word(IMAGE)

    def bind(self, target: Target) -> Score:
        axes = _maps(self, target)

        def score(scene: Scene) -> Tensor:
            values = scene[self.layer]
            total = values.new_zeros(len(values))
            for axis in range(2, 2 + axes):
                total = total + _total(values.diff(dim=axis).abs())
            return total

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class L1(Unit):
    """See :func:`l1`."""

    kind = "l1"
    layer: str = word(IMAGE)
    constant: float = real(0.0)

    def bind(self, target: Target) -> Score:
        target.layer(self.layer)
        return lambda scene: _total((scene[self.layer] - self.constant).abs())


@dataclasses.dataclass(frozen=True, repr=False)
class L2(Unit):
    """See :func:`l2`."""

    kind = "l2"
    layer: str = word(IMAGE)
    constant: float = real(0.0)

    def bind(self, target: Target) -> Score:
        target.layer(self.layer)

        def score(scene: Scene) -> Tensor:
            return (_total((scene[self.layer] - self.constant).square()) + EPSILON).sqrt()

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class Blur(Unit):
    """See :func:`blur`."""

    kind = "blur"
    layer: str = word(IMAGE)

    def bind(self, target: Target) -> Score:
        _maps(self, target)

        def score(scene: Scene) -> Tensor:
            values = scene[self.layer]
            return _total((values - smooth(values).detach()).square()) / 2

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class BoundaryComplexity(Unit):
    """See :func:`boundary_complexity`."""

    kind = "boundary_complexity"
    layer: str = word(IMAGE)
    width: int = whole(20)
    constant: float = real(0.5)

    def bind(self, target: Target) -> Score:
        _maps(self, target)
        sizes = target.layer(self.layer).positions
        if self.width < 1:
            raise UnitError(f"boundary_complexity: width must be positive, not {self.width}")
        ring = torch.ones(sizes)
        ring[tuple(slice(self.width, max(s - self.width, self.width)) for s in sizes)] = 0
        ring = ring.to(target.device)

        def score(scene: Scene) -> Tensor:
            values = scene[self.layer]
            rough = (smooth(values) - values).square()
            return _total((rough + 0.8 * (values - self.constant).square()) * ring)

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class Spectrum(Unit):
    """See :func:`spectrum`."""

    kind = "spectrum"
    layer: str = word(IMAGE)
    power: float = real(1.0)

    def bind(self, target: Target) -> Score:
        axes = _maps(self, target)
        if self.power < 0:
            raise UnitError(f"spectrum needs power >= 0, not {self.power}")
        sizes = target.layer(self.layer).positions
        grid = torch.meshgrid(*(torch.fft.fftfreq(n) for n in sizes), indexing="ij")
        weight = torch.stack(grid).square().sum(0).sqrt() ** (2 * self.power)
        weight = weight.to(target.device)

        def score(scene: Scene) -> Tensor:
            values = scene[self.layer]
            amplitude = torch.fft.fftn(values, dim=tuple(range(-axes, 0)), norm="ortho")
            return _total(torch.view_as_real(amplitude).square().sum(-1) * weight)

        return score


def total_variation(*, layer: str = IMAGE) -> Objective:
    """Return the sum of the absolute differences between neighbours. [Mahendran2015]_."""
    return TotalVariation(layer)


def l1(constant: float = 0, *, layer: str = IMAGE) -> Objective:
    """Return the sum of |x - constant|; on a layer, the activation of all its units."""
    return L1(layer, float(constant))


def l2(constant: float = 0, *, layer: str = IMAGE) -> Objective:
    """Return the root of the sum of (x - constant)^2; 0.5 is gray in an image."""
    return L2(layer, float(constant))


def blur(*, layer: str = IMAGE) -> Objective:
    """Return half the squared distance from the blurred image, which is held constant.

    Subtracting it moves each pixel towards the mean of its 3-wide neighbourhood. [Olah2017]_
    """
    return Blur(layer)


def boundary_complexity(*, width: int = 20, constant: float = 0.5, layer: str = IMAGE) -> Objective:
    """Return how much happens within ``width`` pixels of the border, as lucid penalizes it.

    The sum there of (blurred - x)^2 + 0.8 (x - constant)^2. [Olah2017]_
    """
    return BoundaryComplexity(layer, width, float(constant))


def spectrum(power: float = 1, *, layer: str = IMAGE) -> Objective:
    """Return the energy of the frequencies f (cycles a pixel), weighted by f^(2 power).

    With power 1 that is, up to a factor, the energy of the gradient; higher powers weigh high
    frequencies more. The transform is orthonormal.
    """
    return Spectrum(layer, float(power))
