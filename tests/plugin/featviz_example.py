"""A small plug-in of featviz: one member of each kind."""

import dataclasses

import torch

from featviz.errors import ModelError
from featviz.objectives.unit import Unit, real, word
from featviz.param import Pixel
from featviz.transforms import Intensity


@dataclasses.dataclass(frozen=True, repr=False)
class Contrast(Unit):
    """The standard deviation of a layer over each sample."""

    kind = "contrast"
    layer: str = word()
    power: float = real(1.0)

    def bind(self, target):
        target.layer(self.layer)
        return lambda scene: scene[self.layer].flatten(1).std(1) ** self.power


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gray(Pixel):
    """Pixels of one gray value."""

    def image(self, state):
        image = super().image(state)
        return image.mean(1, keepdim=True).expand_as(image)


@dataclasses.dataclass(frozen=True)
class Dim(Intensity):
    """Darken the image by a factor."""

    factor: float = 0.5

    def draw(self, generator, steps, size):
        return torch.zeros(steps, 0)

    def prepare(self, tape):
        return lambda images, step: images * self.factor


def network(name, *, weights="default", channels=4):
    """Convolutions called conv1, conv3, …, by the size of their kernel."""
    if not name.startswith("conv"):
        raise ModelError(f"example has no network {name!r}: conv3")
    torch.manual_seed(0)
    kernel = torch.nn.Conv2d(3, int(channels), int(name[4:]))
    return torch.nn.Sequential(kernel, torch.nn.ReLU())
