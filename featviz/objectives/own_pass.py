"""The gradient of an objective by an activation, taken in a pass of its own.

What the loop hands to objectives has been split, merged and cast on the way: the gradient by it is
not that by the activation which the network went on with.
"""

from __future__ import annotations

import dataclasses

import torch

from featviz.errors import FeatvizError
from featviz.objectives.base import Objective
from featviz.objectives.scene import INPUT, Scene, Target
from featviz.types import Tensor


def slopes(
    objective: Objective, layer: str, images: Tensor, target: Target
) -> tuple[Tensor, Tensor]:
    """Return the layer's activation for ``images`` and the objective's gradient by it, detached.

    ``images`` are the network's input; each of them is an image of its own.

    Raises
    ------
    FeatvizError
        If the objective does not depend on the layer.
    """
    here = dataclasses.replace(target, batch=len(images))
    names = sorted({layer, *objective.needs(here)} - {INPUT})
    with torch.inference_mode(False), torch.enable_grad():
        inputs = images.detach().clone()
        inputs = inputs.float() if inputs.dtype.itemsize < 4 else inputs
        inputs.requires_grad_()
        activations = target.model.activations(inputs, names) if names else {}
        scene = Scene(inputs, {**activations, INPUT: inputs})
        value = objective.bind(here)(scene).sum()
        found = None
        if value.requires_grad:
            (found,) = torch.autograd.grad(value, scene[layer], allow_unused=True)
    if found is None:
        raise FeatvizError(f"{objective} does not depend on layer {layer!r}: name an earlier one")
    return scene[layer].detach(), found
