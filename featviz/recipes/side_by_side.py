"""Several networks as one, so that an objective can name layers of each."""

from __future__ import annotations

from typing import Any

from torch import nn

from featviz.errors import FeatvizError
from featviz.networks.coercion import as_model
from featviz.networks.layers import OUTPUT, split_address
from featviz.networks.model import Model
from featviz.types import Tensor


class _SideBySide(nn.Module):
    """Shows the same images to several networks, each with its own preprocessing."""

    def __init__(self, models: dict[str, Model]) -> None:
        super().__init__()
        self._models = models
        for name, model in models.items():
            self.add_module(name, model.net)

    def forward(self, images: Tensor) -> dict[str, Any]:
        return {name: model.forward(images) for name, model in self._models.items()}


def together(**models: Model | str) -> Model:
    """Return a model that shows its images to all ``models``; layers start with their names.

    ``fv.recipes.together(old=a, new=b)`` has a layer of ``a`` as ``old._blocks.10``, its output as
    ``output[old]``: ``fv.channel("output[new]", 285) - fv.channel("output[old]", 285)`` is what one
    network sees and the other does not. Size, logits and class names are the first one's.

    Raises
    ------
    FeatvizError
        If there are fewer than two, or their channels, devices or sizes (as far as they need one)
        differ.
    """
    if len(models) < 2:
        raise FeatvizError("together takes several models by name: together(old=a, new=b)")
    found = {name: as_model(model, name) for name, model in models.items()}
    (name, first), *others = found.items()
    for other_name, other in others:
        if other.channels != first.channels or other.device != first.device:
            raise FeatvizError(
                f"{other_name} takes {other.channels} channels on {other.device}, {name} "
                f"{first.channels} on {first.device}"
            )
        if other.size != first.size and not other.takes(first.size):
            raise FeatvizError(f"{other_name} does not take images of {name}'s size {first.size}")
    joint = _JointModel(
        _SideBySide(found),
        size=first.size,
        channels=first.channels,
        classes=first.classes,
        logits=_name_of(name, first.logits),
        axes={_name_of(n, k): axis for n, m in found.items() for k, axis in m.axes.items()},
        crop=first.crop,
    )
    joint._others = [other for model in found.values() for other in model._others]
    return joint


class _JointModel(Model):
    """Hands its images on as they are: each network prepares them for itself."""

    def normalize(self, images: Tensor) -> Tensor:
        return images


def _name_of(name: str, layer: str) -> str:
    """Return what a layer of the network ``name`` is called in the joint one."""
    module, _, path = split_address(layer)
    return f"{OUTPUT}[{name}]{path}" if module == OUTPUT else f"{name}.{layer}"
