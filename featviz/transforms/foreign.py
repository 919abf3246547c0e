"""Transforms of other libraries, modules and plain functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz.errors import FeatvizError
from featviz.transforms.base import Apply, Intensity, Transform
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class Foreign(Intensity):
    """A function of an image (1, C, *size), random or not, such as kornia's and torchvision's.

    It is called for one image at a time, with torch's generators seeded from that image's own seed
    and restored afterwards, so that images remain independent of one another. It has to return an
    image of the same shape.
    """

    function: Callable[[Tensor], Any]

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        return torch.randint(2**24, (steps, 1), generator=generator).float()  # exact in float32

    def prepare(self, tape: Tensor) -> Apply:
        seeds = tape[:, :, 0].long().tolist()

        def apply(images: Tensor, step: int) -> Tensor:
            devices = [images.device] if images.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices):
                rows = []
                for image, seed in zip(images.split(1), seeds[step], strict=True):
                    torch.manual_seed(seed)
                    rows.append(self._one(image))
                return torch.cat(rows)

        return apply

    def _one(self, image: Tensor) -> Tensor:
        result = self.function(image)
        if not isinstance(result, torch.Tensor) or result.shape != image.shape:
            got = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
            raise FeatvizError(
                f"transform {self._name} must return an image of shape {tuple(image.shape)}, "
                f"not {got}"
            )
        return result

    @property
    def _name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)


def adapted(transforms: Any) -> Any:
    """Wrap functions and modules among ``transforms`` in :class:`Foreign`; unpack a ``Compose``."""
    if isinstance(transforms, (str, Transform)):
        return transforms
    if isinstance(transforms, type):
        raise FeatvizError(f"transforms: {transforms.__name__} is a class; make one of it, with ()")
    if type(transforms).__name__ == "Compose" and hasattr(transforms, "transforms"):
        return adapted(list(transforms.transforms))
    if callable(transforms):
        return Foreign(transforms)
    if isinstance(transforms, Sequence):
        return [a for t in transforms for a in _listed(adapted(t))]
    return transforms


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
