"""The Fourier basis: low frequencies change first, as they dominate natural images."""

from __future__ import annotations

import dataclasses
import functools

import torch

from featviz.errors import FeatvizError
from featviz.param import color as _color
from featviz.param import stats as _stats
from featviz.param.base import Basis
from featviz.param.spectrum import unit_power
from featviz.param.stats import Stats
from featviz.types import State, Tensor


@functools.lru_cache(maxsize=32)
def frequencies(size: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Return the frequencies of ``torch.fft.rfftn`` over ``size``, (*half), in cycles a pixel."""
    axes = [torch.fft.fftfreq(n, dtype=torch.float64) for n in size[:-1]]
    axes.append(torch.fft.rfftfreq(size[-1], dtype=torch.float64))
    grid = torch.meshgrid(*axes, indexing="ij")
    return torch.stack(grid).square().sum(0).sqrt().to(device)


@functools.lru_cache(maxsize=32)
def envelope(size: tuple[int, ...], decay: float, device: torch.device | str = "cpu") -> Tensor:
    """Return the amplitude of each frequency of the half spectrum, ~ 1 / f^decay.

    The shape is that of ``torch.fft.rfftn`` over ``size``. The zero frequency has the amplitude of
    the lowest other one. White noise of unit standard deviation, filtered by it, keeps unit
    standard deviation at every size: learning rates carry over.
    """
    amplitude = frequencies(size).clamp_min(1 / max(size)) ** -decay
    return unit_power(amplitude, size).to(torch.float32).to(device)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fourier(Basis):
    """Images as their Fourier coefficients, divided by 1 / f^decay.

    [Olah2017]_, "preconditioning". Any number of spatial axes, of any length, also odd:
    (B, C, *size). The state is the half spectrum (B, C, *half, 2), real and imaginary parts.
    lucid's published form differs by a constant factor; here the initial noise has standard
    deviation ``sd`` at every size. Decay 1.5 gives images the power spectrum of photographs;
    lucid's 1 gives more detail, and grain.

    With ImageNet's colours, the second and third decorrelated channels, which carry the chroma,
    fall faster: 1 / f^(decay + chroma). Photographs have little colour at high frequencies, where
    networks reward it: the difference is coloured grain and fringes. lucid's form has ``chroma=0``.

    ``stats`` (:func:`featviz.calibrate`, or its file) replaces 1 / f^decay by the measured
    spectrum and ImageNet's colours by the measured ones.
    """

    fades = True
    decay: float = 1.5
    chroma: float = 0.25
    stats: Stats | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.decay >= 0:
            raise FeatvizError(f"decay must not be negative, not {self.decay}")
        if not self.decay + self.chroma >= 0:
            raise FeatvizError(f"decay + chroma must not be negative: {self.decay + self.chroma}")
        _stats.check(_stats.resolve(self.stats), self.channels)

    def amplitude(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the amplitude of each frequency, (*half), or (C, *half) where channels differ."""
        stats = _stats.resolve(self.stats)
        if stats is not None:
            return stats.envelope(self.shape).to(device)
        luminance = envelope(self.shape, self.decay, device)
        imagenet = self.color == "imagenet" or (self.color == "auto" and self.channels == 3)
        if self.chroma == 0 or not imagenet:
            return luminance
        chroma = envelope(self.shape, self.decay + self.chroma, device)
        return torch.stack([luminance, chroma, chroma])

    def color_matrix(self) -> _color.Matrix | str:
        """Return the colour correlation, that of ``stats`` if they are given."""
        stats = _stats.resolve(self.stats)
        if stats is None or self.color != "auto":
            return self.color
        return tuple(tuple(row) for row in stats.root.tolist())

    def synthesize(self, state: State) -> Tensor:
        spectrum = state["spectrum"]
        amplitude = self.amplitude(spectrum.device)
        scaled = torch.view_as_complex(spectrum) * amplitude
        axes = tuple(range(-len(self.shape), 0))
        return torch.fft.irfftn(scaled, s=self.shape, dim=axes, norm="ortho")

    def analyze(self, raw: Tensor) -> State:
        axes = tuple(range(-len(self.shape), 0))
        spectrum = torch.fft.rfftn(raw, dim=axes, norm="ortho")
        return {"spectrum": torch.view_as_real(spectrum / self.amplitude())}

    def scatter(self, noise: Tensor) -> State:
        axes = tuple(range(-len(self.shape), 0))
        return {"spectrum": torch.view_as_real(torch.fft.rfftn(noise, dim=axes, norm="ortho"))}

    def hold_(self, gradients: State, finest: float) -> None:
        for gradient in gradients.values():
            frequency = frequencies(self.shape, gradient.device)
            shape = (*frequency.shape, *(1,) * (gradient.ndim - 2 - frequency.ndim))
            gradient.mul_((frequency <= finest).view(shape))
