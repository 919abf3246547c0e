"""MACO: the magnitudes of a natural spectrum are given, only the phases move."""

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

    ``decay`` is the exponent a of the magnitudes 1 / f^a where no ``stats`` are given; natural
    images have about 1 [Field1987]_. The image then has deviation ``contrast`` before the
    range, so that no frequency can grow: what changes is where things are, not how strong.
    [Fel2023]_
    """

    contrast: float = 1.2
    sd: float = 1.0  # only the phases count

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.contrast > 0:
            raise FeatvizError(f"contrast must be positive, not {self.contrast}")

    def scatter(self, noise: Tensor) -> State:
        return self.analyze(noise)  # the phases of white noise are uniform

    def _magnitude(self, device: torch.device) -> Tensor:
        sides = math.prod(self.shape)
        scale = self.amplitude(device) * self.contrast
        flat = scale.clone()
        origin: Any = (..., *(0,) * len(self.shape))
        flat[origin] = 0  # the mean is gray: contrast is all of the rest
        kept = (scale.square().mean() / flat.square().mean().clamp_min(1e-12)).sqrt()
        return flat * kept if sides > 1 else flat

    def synthesize(self, state: State) -> Tensor:
        phase = state["phase"]
        axes = tuple(range(-len(self.shape), 0))
        spectrum = torch.polar(self._magnitude(phase.device).expand(phase.shape), phase)
        return torch.fft.irfftn(spectrum, s=self.shape, dim=axes, norm="ortho")

    def analyze(self, raw: Tensor) -> State:
        axes = tuple(range(-len(self.shape), 0))
        return {"phase": torch.fft.rfftn(raw, dim=axes, norm="ortho").angle()}
