"""A Laplacian pyramid: coarse and fine structure as separate levels."""

from __future__ import annotations

import dataclasses
import math

from torch.nn import functional as F

from featviz.errors import FeatvizError
from featviz.param.base import Basis
from featviz.resample import resize
from featviz.types import State, Tensor
from featviz.validation import real

#: Largest decay: beyond it, fine levels do nothing.
MOST_DECAY = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Laplacian(Basis):
    """Images as a sum of ``levels`` pixel grids, each of half the resolution of the one before.

    The state contains ``level0`` (the image's size) to ``level{n-1}``, the coarsest. A level counts
    1 / 2^decay of the next coarser one, so that low frequencies change first, as with
    :class:`Fourier`, but locally. [Burt1983]_; lucid's ``laplacian_pyramid`` is ``decay=0``.
    """

    levels: float = 5
    decay: float = 1.0
    fades = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels != int(self.levels) or self.levels < 1:
            raise FeatvizError(f"levels must be a positive whole number, not {self.levels}")
        real("decay", self.decay, 0, MOST_DECAY)

    def _amplitudes(self, levels: int) -> list[float]:
        return [float(2 ** (-self.decay * (levels - 1 - k))) for k in range(levels)]

    def _sizes(self) -> list[tuple[int, ...]]:
        sizes = [self.shape]
        while len(sizes) < self.levels and max(sizes[-1]) > 1:
            sizes.append(tuple(max(1, (side + 1) // 2) for side in sizes[-1]))
        return sizes

    def synthesize(self, state: State) -> Tensor:
        amplitudes = self._amplitudes(len(state))
        total = state["level0"] * amplitudes[0]
        for k in range(1, len(state)):
            total = total + resize(state[f"level{k}"], self.shape) * amplitudes[k]
        return total

    def analyze(self, raw: Tensor) -> State:
        state, residual = {}, raw
        sizes = self._sizes()
        amplitudes = self._amplitudes(len(sizes))
        for k in range(len(sizes) - 1, 0, -1):  # what each level can represent, coarsest first
            level = F.interpolate(residual, sizes[k], mode="area")
            state[f"level{k}"] = level / amplitudes[k]
            residual = residual - resize(level, self.shape)
        return {"level0": residual / amplitudes[0], **state}

    def scatter(self, noise: Tensor) -> State:
        sizes = self._sizes()
        norm = math.hypot(*self._amplitudes(len(sizes)))
        return {f"level{k}": _crop(noise, size) / norm for k, size in enumerate(sizes)}

    def hold_(self, gradients: State, finest: float) -> None:
        for level in range(len(gradients) - 1):  # the coarsest may be all there is
            if 0.5 / 2**level > finest:
                gradients[f"level{level}"].zero_()


def _crop(noise: Tensor, size: tuple[int, ...]) -> Tensor:
    """Crop the grid of a level from white noise."""
    for axis, side in enumerate(size):
        noise = noise.narrow(axis + 2, 0, side)
    return noise
