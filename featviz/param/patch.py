"""A small image that is the same wherever it is pasted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.param.base import Param
from featviz.seeds import generator
from featviz.types import State, Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patch(Param):
    """One image of ``size``, free in [0, 1], for all of ``images`` (B, C, H, W).

    The loop pastes it with :class:`featviz.transforms.Paste`; in finished images it is in the
    centre. It starts gray, with some noise from the first sample's seed.
    """

    relational = True
    starts_at_images = True
    images: Tensor = dataclasses.field(compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images.ndim != 4:
            raise FeatvizError(f"Patch takes images (B, C, H, W), not {self.images.ndim} axes")
        sides = tuple(self.images.shape[2:])
        if len(self.shape) != 2 or any(p > s for p, s in zip(self.shape, sides, strict=True)):
            raise FeatvizError(f"a patch of {self.size} does not fit images of {sides}")
        object.__setattr__(self, "channels", self.images.shape[1])

    @property
    def seen(self) -> tuple[int, ...]:
        return tuple(self.images.shape[2:])

    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        shape = (1, self.images.shape[1], *self.shape)
        noise = torch.rand(shape, generator=generator(seeds[0], "patch")) - 0.5
        return {"pixels": (0.5 + 0.1 * noise).to(device).requires_grad_()}

    def image(self, state: State) -> Tensor:
        return state["pixels"].expand(len(self.images), -1, -1, -1)

    def flatten(self, images: Tensor) -> Tensor:
        composite = self.images.to(images).clone()
        top, left = ((a - b) // 2 for a, b in zip(self.seen, self.shape, strict=True))
        composite[..., top : top + self.shape[0], left : left + self.shape[1]] = images
        return composite

    def project_(self, state: State) -> None:
        state["pixels"].clamp_(0, 1)
