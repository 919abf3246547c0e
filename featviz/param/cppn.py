"""A compositional pattern-producing network: an image as a function of its coordinates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.param.base import ColorParam
from featviz.seeds import generator
from featviz.types import State, Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cppn(ColorParam):
    """Images computed by a small network from pixel coordinates; its weights are optimized.

    The coordinates of each axis, and the radius, pass through ``layers`` dense layers of ``width``
    features; each activation is (atan(x) / 0.67, atan(x)² / 0.6), as published. The image has no
    resolution of its own: :meth:`image` accepts any size. [Mordvintsev2018]_
    """

    rate = 0.05
    layers: float = 6
    width: float = 24
    sd: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("layers", "width"):
            value = getattr(self, name)
            if value != int(value) or value < 1:
                raise FeatvizError(f"{name} must be a positive whole number, not {value}")

    def _layer_sizes(self) -> list[tuple[int, int]]:
        layers, width = int(self.layers), int(self.width)
        axes = len(self.shape)
        inputs = [axes + (axes > 1)] + [2 * width] * layers
        return list(zip(inputs, [width] * layers + [self._channels()], strict=True))

    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        state: State = {}
        generators = [generator(seed, "param") for seed in seeds]
        for k, (inputs, outputs) in enumerate(self._layer_sizes()):
            # The last layer starts at zero, so the image starts gray.
            std = self.sd / math.sqrt(inputs) if k < int(self.layers) else 0.0
            initial = [torch.randn(inputs, outputs, generator=g) * std for g in generators]
            weight = torch.stack(initial).to(device)
            state[f"weight{k}"] = weight.requires_grad_()
            state[f"bias{k}"] = torch.zeros(
                len(initial), 1, outputs, device=device
            ).requires_grad_()
        return state

    def image(self, state: State, size: tuple[int, ...] | None = None) -> Tensor:
        shape = size or self.shape
        device = state["weight0"].device
        # Centred, with unit variance; the longest axis has the same scale at every size.
        scale = math.sqrt(3) / max(shape)
        axes = [(2 * torch.arange(n, device=device) - n + 1) * scale for n in shape]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
        if len(shape) > 1:
            grid = torch.cat([grid, grid.square().sum(-1, keepdim=True).sqrt()], -1)
        values = grid.expand(len(state["weight0"]), -1, -1)
        last = int(self.layers)
        for k in range(last + 1):
            values = values @ state[f"weight{k}"] + state[f"bias{k}"]
            if k < last:
                arctangent = values.atan()
                values = torch.cat([arctangent / 0.67, arctangent.square() / 0.6], -1)
        raw = values.transpose(1, 2).reshape(len(values), -1, *shape)
        return self.finish(raw)
