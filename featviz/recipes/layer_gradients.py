"""A layer's activations, and an objective's mean gradient by them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from featviz.errors import FeatvizError
from featviz.networks.layers import module_names, split_address
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives import objective as as_objective
from featviz.objectives.reduction import patches
from featviz.objectives.scene import Scene, Target
from featviz.types import LayerInfo, Tensor
from featviz.validation import positive_int


def layer_activations(model: Model, images: Tensor, layer: str) -> Tensor:
    """Return the activations (B, K, *grid) of a layer with positions, on the CPU."""
    size = tuple(images.shape[2:])
    info = model.layer(layer, size)
    with torch.no_grad():
        units = model.activations(images.to(model.device), layer)[layer]
    return on_grid(model, info, units, size)


@dataclasses.dataclass(frozen=True)
class BatchAttribution:
    """Activations less the baseline's and mean gradients (B, K, *grid), and values (B,)."""

    activations: Tensor
    slopes: Tensor
    values: Tensor
    baseline_values: Tensor


def attribute_batch(
    model: Model,
    images: Tensor,
    objective: Objective | str,
    layer: str,
    baseline: Tensor | None = None,
    points: int = 16,
) -> BatchAttribution:
    """Return the parts of the contributions of a batch; see :func:`layer_attribution`."""
    positive_int("points", points)
    goal = as_objective(objective)
    images = images.to(model.device)
    size = tuple(images.shape[2:])
    target = Target(model, size, len(images))
    score, info = goal.bind(target), target.layer(layer)
    needs = sorted({layer, *goal.needs(target)})
    module, call = _module(model, info)
    with model.session(), torch.no_grad():
        table = model.layers(size)
        units = model.capture(images, [layer], table)[layer]
        nothing = torch.zeros_like(units)
        if baseline is not None:
            nothing = model.capture(baseline.to(model.device), [layer], table)[layer]

        def evaluate(share: float) -> tuple[Tensor, Tensor | None]:
            shown = nothing.lerp(units, share) if share < 1 else units
            with torch.enable_grad(), _replaced(module, call, shown):
                scene = Scene(images, model.capture(images, needs, table))
                values = score(scene)
                if not values.requires_grad:
                    return values, None
                (slopes,) = torch.autograd.grad(values.sum(), scene[layer], allow_unused=True)
            return values.detach().float().cpu(), slopes

        values, slopes = evaluate(1.0)
        if slopes is None:
            raise FeatvizError(f"{goal} does not depend on layer {layer!r}: name an earlier one")
        if points > 1:
            found = [evaluate((j + 0.5) / points)[1] for j in range(points)]
            slopes = torch.stack([s for s in found if s is not None]).mean(0)
        baseline_values = evaluate(0.0)[0]
    difference = units - nothing
    return BatchAttribution(
        on_grid(model, info, difference, size),
        on_grid(model, info, slopes, size),
        values,
        baseline_values,
    )


def _module(model: Model, info: LayerInfo) -> tuple[nn.Module, int]:
    """Return the module that is a layer, and the number of its call."""
    module, call, path = split_address(info.name)
    modules = module_names(model.net)
    if path or module not in modules:
        raise FeatvizError(f"layer {info.name!r} is not what a module returns: name a module")
    return modules[module], info.calls - 1 if call is None else call


@contextlib.contextmanager
def _replaced(module: nn.Module, call: int, units: Tensor) -> Iterator[None]:
    """Let a call of a module return ``units``, with a gradient, within the context."""
    calls = 0

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        # A copy, which later operations may change in place.
        return units.detach().requires_grad_().clone() if calls == call + 1 else None

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def on_grid(model: Model, info: LayerInfo, units: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return activations (B, …) as (B, K, *grid) on the CPU, without class tokens.

    Raises
    ------
    FeatvizError
        If the layer has no positions.
    """
    units = units.detach().float().cpu().movedim(info.axis, 1)
    if units.ndim == len(size) + 2 and math.prod(units.shape[2:]) > 1:
        return units
    if units.ndim != 3:
        raise FeatvizError(
            f"layer {info.name!r} has shape {info.shape}: name one with maps (K, *positions) or "
            "patch tokens"
        )
    return patches(units, info, Target(model, size, 1))
