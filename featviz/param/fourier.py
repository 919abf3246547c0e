"""The Fourier basis: low frequencies move first, as they dominate natural images."""

from __future__ import annotations

import dataclasses
import functools

import torch

from featviz.errors import FeatvizError
from featviz.param.base import ColorParam
from featviz.types import State, Tensor


@functools.lru_cache(maxsize=32)
def envelope(size: tuple[int, ...], decay: float, device: torch.device | str = "cpu") -> Tensor:
    """Return the amplitude of each frequency of the half spectrum, ~ 1 / f^decay.

    The shape is that of ``torch.fft.rfftn`` over ``size``. The zero frequency gets the amplitude
    of the lowest other one. The scale is such that white noise of unit deviation, filtered by
    it, keeps unit deviation, whatever the size: learning rates carry over.
    """
    axes = [torch.fft.fftfreq(n, dtype=torch.float64) for n in size[:-1]]
    axes.append(torch.fft.rfftfreq(size[-1], dtype=torch.float64))
    grid = torch.meshgrid(*axes, indexing="ij")
    frequency = torch.stack(grid).square().sum(0).sqrt()
    amplitude = frequency.clamp_min(1 / max(size)) ** -decay
    # All but the first (and, for an even side, the last) column stand for two frequencies.
    weight = torch.full(amplitude.shape, 2.0, dtype=torch.float64)
    weight[..., 0] = 1
    if size[-1] % 2 == 0:
        weight[..., -1] = 1
    power = (weight * amplitude.square()).sum() / weight.sum()
    return (amplitude / power.sqrt()).to(torch.float32).to(device)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fourier(ColorParam):
    """Pictures as their Fourier coefficients, divided by 1 / f^decay.

    [Olah2017]_, "preconditioning". Any number of spatial axes, any side, odd ones too:
    (B, C, *size). The state is the half spectrum (B, C, *half, 2), real and imaginary parts.
    lucid's published form differs by a constant factor; here the starting noise has deviation
    ``sd`` at every size.
    """

    decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.decay >= 0:
            raise FeatvizError(f"decay must not be negative, not {self.decay}")

    def _synthesize(self, state: State) -> Tensor:
        spectrum = state["spectrum"]
        amplitude = envelope(self.shape, self.decay, spectrum.device)
        scaled = torch.view_as_complex(spectrum) * amplitude
        axes = tuple(range(-len(self.shape), 0))
        return torch.fft.irfftn(scaled, s=self.shape, dim=axes, norm="ortho")

    def _analyze(self, raw: Tensor) -> State:
        axes = tuple(range(-len(self.shape), 0))
        spectrum = torch.fft.rfftn(raw, dim=axes, norm="ortho")
        return {"spectrum": torch.view_as_real(spectrum / envelope(self.shape, self.decay))}

    def _noise(self, noise: Tensor) -> State:
        axes = tuple(range(-len(self.shape), 0))
        return {"spectrum": torch.view_as_real(torch.fft.rfftn(noise, dim=axes, norm="ortho"))}
