"""A Laplacian pyramid: coarse and fine structure as separate levels."""

from __future__ import annotations

import dataclasses

from torch.nn import functional as F

from featviz.errors import FeatvizError
from featviz.param.base import Basis
from featviz.resample import resize
from featviz.types import State, Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Laplacian(Basis):
    """Images as a sum of ``levels`` pixel grids, each of half the resolution of the one before.

    The state contains ``level0`` (the image's size) to ``level{n-1}``. A coarse value affects many
    pixels, so low frequencies change first, as with :class:`Fourier`, but locally. [Burt1983]_;
    lucid's ``laplacian_pyramid``.
    """

    levels: float = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels != int(self.levels) or self.levels < 1:
            raise FeatvizError(f"levels must be a positive whole number, not {self.levels}")

    def _sizes(self) -> list[tuple[int, ...]]:
        sizes = [self.shape]
        while len(sizes) < self.levels and max(sizes[-1]) > 1:
            sizes.append(tuple(max(1, (side + 1) // 2) for side in sizes[-1]))
        return sizes

    def synthesize(self, state: State) -> Tensor:
        total = state["level0"]
        for k in range(1, len(state)):
            total = total + resize(state[f"level{k}"], self.shape)
        return total

    def analyze(self, raw: Tensor) -> State:
        state, residual = {}, raw
        sizes = self._sizes()
        for k in range(len(sizes) - 1, 0, -1):  # what each level can represent, coarsest first
            level = F.interpolate(residual, sizes[k], mode="area")
            state[f"level{k}"] = level
            residual = residual - resize(level, self.shape)
        return {"level0": residual, **state}

    def scatter(self, noise: Tensor) -> State:
        return {f"level{k}": self._grid(noise, size) for k, size in enumerate(self._sizes())}

    def _grid(self, noise: Tensor, size: tuple[int, ...]) -> Tensor:
        """Crop the grid of a level from white noise."""
        for axis, side in enumerate(size):
            noise = noise.narrow(axis + 2, 0, side)
        return noise / len(self._sizes()) ** 0.5
