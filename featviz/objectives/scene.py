"""What objectives are bound to, :class:`Target`, and what they read, :class:`Scene`."""

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

#: The clean image as a layer; ``input`` is the transformed image, which the network sees.
IMAGE = "image"
INPUT = "input"


@dataclasses.dataclass
class Scene:
    """The inputs of an objective: the clean images (B, C, *spatial) and the activations.

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
        """The scenes of the individual samples; their gradients are assembled in one operation."""
        images = self.images.split(1)
        splits = {name: a.split(1) for name, a in self.activations.items()}
        return [
            Scene(image, {name: p[i] for name, p in splits.items()}, self.progress)
            for i, image in enumerate(images)
        ]


#: Computes the value per sample, (B,), from a scene.
Score: TypeAlias = Callable[[Scene], Tensor]


@dataclasses.dataclass(frozen=True)
class Target:
    """What an objective is bound to: a network, the size of the images, and their number.

    ``size`` is that of the network's input, which padding makes larger than the image. ``channels``
    are those of the image if they differ from the network's: transparent images have one more.
    """

    model: Model
    size: tuple[int, ...]
    batch: int
    channels: int | None = None

    @property
    def device(self) -> torch.device:
        """The device of the activations."""
        return self.model.device

    def layer(self, name: str) -> LayerInfo:
        """Return the description of a layer; raise :class:`LayerError` if it does not exist."""
        if name == IMAGE:
            channels = self.channels or self.model.channels
            return LayerInfo(IMAGE, "Image", (channels, *self.size), 1, channels)
        return self.model.layer(name, self.size)
