"""Class activation maps: attribution by the feature maps of a layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from featviz.attribution.case import Case, captum
from featviz.attribution.gradient_based import gradient, guided_backprop
from featviz.errors import FeatvizError, UnitError
from featviz.networks.layers import module_names
from featviz.objectives.reduction import token_grid
from featviz.objectives.scene import Target
from featviz.optim.evaluator import Evaluator
from featviz.resample import resize
from featviz.types import LayerInfo, Tensor


def grad_cam(case: Case) -> Tensor:
    """Return max(0, Σ_k w_k A_k), w_k the mean of ∂o/∂A_k over the map, resized linearly.

    A_k are the feature maps of ``layer``; by default, of the last layer with positions that the
    objective depends on. The patch tokens of a transformer are a map, without its class token.
    [Selvaraju2017]_

    Raises
    ------
    FeatvizError
        As :func:`find_layers`, or if the objective has no gradient with respect to the layer.
    """
    name = case.options["layer"]
    candidates = find_layers(case.evaluator, name)
    layers = with_gradient(case, candidates)
    if not layers:
        raise FeatvizError(
            f"{case.evaluator.objective} has no gradient with respect to the maps of "
            f"{'any layer' if name is None else f'layer {name!r}: name another one'}"
        )
    info = layers[-1]
    case.notes["layer"] = info.name
    module = module_names(case.evaluator.model.net)[info.name]
    if info.axis == 1 and len(info.positions) == len(case.evaluator.size):
        explain = captum().LayerGradCam(case.evaluator, module)
        maps: Tensor = explain.attribute(case.leaf(), relu_attributions=True)
    else:
        maps = _cam_of_other_layouts(case, info, module)
    # Gradients with respect to a layer are scaled, like all inside the network.
    return resize(
        maps.detach().float() / case.evaluator.gradient_scale, tuple(case.image.shape[2:])
    )


def _cam_of_other_layouts(case: Case, info: LayerInfo, module: nn.Module) -> Tensor:
    """Return Grad-CAM's map (1, 1, *grid) of tokens, or of a map with its channels last."""
    activations: list[Tensor] = []

    def hook(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        activations.append(output)
        return output.clone()  # later operations may change it in place

    handle = module.register_forward_hook(hook)
    try:
        with torch.enable_grad():
            value = case.evaluator(case.leaf()).sum()
            (gradients,) = torch.autograd.grad(value, activations[-1])
    finally:
        handle.remove()
    maps, slopes = (
        _on_grid(case, info, tensor.movedim(info.axis, 1))
        for tensor in (activations[-1], gradients)
    )
    weights = slopes.flatten(2).mean(2).view(*slopes.shape[:2], *(1 for _ in maps.shape[2:]))
    return (weights * maps).sum(1, keepdim=True).clamp_min(0)


def _on_grid(case: Case, info: LayerInfo, units: Tensor) -> Tensor:
    """Return activations (B, C, *positions) on the grid of the image, without class tokens."""
    if units.ndim == case.image.ndim:
        return units
    prefix, grid = token_grid(info, Target(case.evaluator.model, case.evaluator.size, 1))
    return units[..., prefix:].unflatten(2, grid)


def guided_grad_cam(case: Case) -> Tensor:
    """Return guided backpropagation times Grad-CAM. [Selvaraju2017]_."""
    return guided_backprop(case) * grad_cam(case)


def with_gradient(case: Case, layers: list[LayerInfo]) -> list[LayerInfo]:
    """Return the layers through which a gradient flows from the objective to the image.

    A layer that runs before those that the objective reads need not lead to them.
    """
    modules = module_names(case.evaluator.model.net)
    reached: set[str] = set()
    calls: dict[str, int] = {}

    def reach(info: LayerInfo, gradient: Tensor) -> None:
        # Behind the last attention, only the class token leads to a classifier.
        if info.axis == 1 or _on_grid(case, info, gradient.movedim(info.axis, 1)).any():
            reached.add(info.name)

    def watch(info: LayerInfo) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            calls[info.name] = calls.get(info.name, 0) + 1
            if calls[info.name] == info.calls and output.requires_grad:  # the last call counts
                output.register_hook(lambda gradient: reach(info, gradient))

        return hook

    handles = [modules[info.name].register_forward_hook(watch(info)) for info in layers]
    try:
        gradient(case)
    finally:
        for handle in handles:
            handle.remove()
    return [info for info in layers if info.name in reached]


def find_layers(evaluator: Evaluator, name: str | None) -> list[LayerInfo]:
    """Return the layer whose maps are used; without a name, all candidates in execution order.

    Raises
    ------
    FeatvizError
        If the layer has no maps (C, *spatial) or runs after the layers that the objective reads, or
        if no name is given and there are no candidates.
    """
    table = evaluator.forward.table
    order = [info.name for info in table]
    last = max((order.index(n) for n in evaluator.needs), default=0)
    modules = module_names(evaluator.model.net)

    axes = len(evaluator.size)

    def fits(info: LayerInfo) -> bool:
        maps = info.axis == 1 and len(info.positions) == axes
        maps = maps or info.is_map(axes) or (axes == 2 and _has_grid(info, evaluator))
        return maps and math.prod(info.positions) > 1 and info.name in modules

    if name is not None:
        info = table.find(name)
        if not fits(info):
            raise FeatvizError(
                f"Grad-CAM needs maps (C, *positions) or patch tokens of a module: layer {name!r} "
                f"has shape {info.shape}"
            )
        if order.index(name) > last:
            raise FeatvizError(
                f"layer {name!r} runs after what {evaluator.objective} reads: name an earlier one"
            )
        return [info]
    candidates = [info for info in table[: last + 1] if info.batched and fits(info)]
    tokens = [info for info in candidates if len(info.positions) < axes]
    if len(tokens) > len(candidates) / 2:  # a transformer: the residual stream and its norms
        candidates = [info for info in tokens if not isinstance(modules[info.name], nn.Linear)]
    else:
        candidates = [info for info in candidates if len(info.positions) == axes]
    if not candidates:
        raise FeatvizError(
            f"no layer that {evaluator.objective} depends on has maps (C, *positions) or patch "
            "tokens: Grad-CAM needs one; use another method"
        )
    return candidates


def _has_grid(info: LayerInfo, evaluator: Evaluator) -> bool:
    """Return whether a layer's positions are tokens of the image's patches."""
    if not info.is_tokens(2):
        return False
    try:
        token_grid(info, Target(evaluator.model, evaluator.size, 1))
    except UnitError:
        return False
    return True
