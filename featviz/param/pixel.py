"""The pixel basis: one free parameter per pixel and channel."""

from __future__ import annotations

import dataclasses

from featviz.param.base import Basis
from featviz.types import State, Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixel(Basis):
    """Images whose pixels are optimized directly: no spatial prior, any number of axes."""

    def synthesize(self, state: State) -> Tensor:
        return state["pixels"]

    def analyze(self, raw: Tensor) -> State:
        return {"pixels": raw}

    def scatter(self, noise: Tensor) -> State:
        return {"pixels": noise}
