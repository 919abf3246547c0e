"""What an objective is bound to, and what it then looks at."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch

from featviz.layers import LayerInfo
from featviz.types import Tensor

if TYPE_CHECKING:
    from featviz.model import Model


@dataclasses.dataclass
class Scene:
    """What an objective looks at: the clean images (B, C, *spatial) and the activations."""

    images: Tensor
    activations: dict[str, Tensor]

    def __getitem__(self, layer: str) -> Tensor:
        return self.activations[layer]

    @functools.cached_property
    def samples(self) -> list[Scene]:
        """The scenes of the single samples; the gradient of all is assembled in one go."""
        images = self.images.split(1)
        parts = {name: a.split(1) for name, a in self.activations.items()}
        return [
            Scene(image, {name: p[i] for name, p in parts.items()})
            for i, image in enumerate(images)
        ]


Score: TypeAlias = Callable[[Scene], Tensor]


@dataclasses.dataclass(frozen=True)
class Target:
    """What an objective is bound to: the layers of a network for one size and batch."""

    layer: Callable[[str], LayerInfo]
    class_index: Callable[[str], int]
    logits: str
    batch: int
    device: torch.device

    @classmethod
    def of(cls, model: Model, size: tuple[int, ...], batch: int) -> Target:
        """Describe ``model`` for a batch of images of ``size``."""
        find = functools.partial(model.layer, size=size)
        return cls(find, model.class_index, model.logits, batch, model.device)
