"""MACO: Fourier magnitudes are fixed to a natural spectrum, only phases are optimized."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

from featviz.errors import FeatvizError
from featviz.param.fourier import Fourier
from featviz.types import State, Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Maco(Fourier):
    """Images whose Fourier magnitudes stay those of photographs; the state is the phase.

    ``decay`` is the exponent a of the magnitudes 1 / f^a if no ``stats`` are given; for natural
    images it is about 1 [Field1987]_. The image has standard deviation ``contrast`` before the
    range is applied, so that no frequency can grow: what changes is where structure is, not how
    strong. [Fel2023]_
    """

    fades = False  # the state is the phase
    decay: float = 1.0
    contrast: float = 1.2
    sd: float = 1.0  # only the phases matter

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.contrast > 0:
            raise FeatvizError(f"contrast must be positive, not {self.contrast}")

    def scatter(self, noise: Tensor) -> State:
        return self.analyze(noise)  # the phases of white noise are uniform

    def _magnitude(self, device: torch.device) -> Tensor:
        pixels = math.prod(self.shape)
        scale = self.amplitude(device) * self.contrast
        centred = scale.clone()
        origin: Any = (..., *(0,) * len(self.shape))
        centred[origin] = 0  # the mean is gray: all contrast is in the other frequencies
        gain = (scale.square().mean() / centred.square().mean().clamp_min(1e-12)).sqrt()
        return centred * gain if pixels > 1 else centred

    def synthesize(self, state: State) -> Tensor:
        phase = state["phase"]
        axes = tuple(range(-len(self.shape), 0))
        spectrum = torch.polar(self._magnitude(phase.device).expand(phase.shape), phase)
        return torch.fft.irfftn(spectrum, s=self.shape, dim=axes, norm="ortho")

    def analyze(self, raw: Tensor) -> State:
        axes = tuple(range(-len(self.shape), 0))
        return {"phase": torch.fft.rfftn(raw, dim=axes, norm="ortho").angle()}
