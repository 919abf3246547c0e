"""The plain basis: one free parameter a pixel and channel."""

from __future__ import annotations

import dataclasses

from featviz.param.base import ColorParam
from featviz.types import State, Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixel(ColorParam):
    """Pictures whose pixels are optimized directly: no prior over space, any number of axes."""

    def _synthesize(self, state: State) -> Tensor:
        return state["pixels"]

    def _analyze(self, raw: Tensor) -> State:
        return {"pixels": raw}
