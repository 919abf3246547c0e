"""The gradient of an objective by an activation, taken in a pass of its own.

What the loop hands to objectives has been split, merged and cast on the way: the gradient by it is
not that by the activation which the network went on with.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from featviz.errors import FeatvizError
from featviz.objectives.base import Objective
from featviz.objectives.scene import INPUT, Scene, Target
from featviz.types import Tensor


def bind_slopes(
    objective: Objective, layer: str, target: Target
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return a function from images to the layer's activation and the gradient by it, detached.

    The images are the network's input; the gradient is that of ``objective``, and each image is
    one of its own. The function raises :class:`FeatvizError` if the objective does not depend on
    the layer.
    """
    score = objective.bind(target)
    names = sorted({layer, *objective.needs(target)} - {INPUT})

    def slopes(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            inputs = images.detach().clone()
            inputs = inputs.float() if inputs.dtype.itemsize < 4 else inputs
            inputs.requires_grad_()
            activations = target.model.activations(inputs, names) if names else {}
            scene = Scene(inputs, {**activations, INPUT: inputs})
            value = score(scene).sum()
            found = None
            if value.requires_grad:
                (found,) = torch.autograd.grad(value, scene[layer], allow_unused=True)
        if found is None:
            raise FeatvizError(
                f"{objective} does not depend on layer {layer!r}: name an earlier one"
            )
        return scene[layer].detach(), found

    return slopes
