"""What an objective is bound to, and what it then looks at."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch

from featviz.errors import LayerError
from featviz.types import LayerInfo, Tensor

if TYPE_CHECKING:
    from featviz.networks.model import Model

#: The name of the clean image as a layer; ``input`` is what the network sees of it.
IMAGE = "image"


@dataclasses.dataclass
class Scene:
    """What an objective looks at: the clean images (B, C, *spatial) and the activations.

    ``progress`` goes from 0 at the first step to 1 at the last, and is 1 outside a run.
    """

    images: Tensor
    activations: dict[str, Tensor]
    progress: float | Tensor = 1.0

    def __post_init__(self) -> None:
        for name, activation in self.activations.items():
            if len(activation) != len(self.images):
                raise LayerError(
                    f"layer {name!r} returned shape {tuple(activation.shape)} for "
                    f"{len(self.images)} image(s): its first axis is not the batch"
                )

    def __getitem__(self, layer: str) -> Tensor:
        return self.images if layer == IMAGE else self.activations[layer]

    @functools.cached_property
    def samples(self) -> list[Scene]:
        """The scenes of the single samples; the gradient of all is assembled in one go."""
        images = self.images.split(1)
        parts = {name: a.split(1) for name, a in self.activations.items()}
        return [
            Scene(image, {name: p[i] for name, p in parts.items()}, self.progress)
            for i, image in enumerate(images)
        ]


#: Computes the value per sample, (B,), of a scene.
Score: TypeAlias = Callable[[Scene], Tensor]


@dataclasses.dataclass(frozen=True)
class Target:
    """What an objective is bound to: a network, the size of the images, their number.

    ``size`` is what the network sees, which a pad makes larger than the picture. ``channels`` are
    the image's, where it has others than the network's: transparent ones have one more.
    """

    model: Model
    size: tuple[int, ...]
    batch: int
    channels: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the activations will be."""
        return self.model.device

    def layer(self, name: str) -> LayerInfo:
        """Return what is known of a layer; raise :class:`LayerError` if there is none."""
        if name == IMAGE:
            channels = self.channels or self.model.channels
            return LayerInfo(IMAGE, "Image", (channels, *self.size), 1, channels)
        return self.model.layer(name, self.size)
