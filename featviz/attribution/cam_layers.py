"""The layer that class activation maps are made of: its maps, and the objective's gradient."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from featviz.attribution.case import Case
from featviz.attribution.gradient_based import gradient
from featviz.errors import FeatvizError, UnitError
from featviz.networks.layers import module_names
from featviz.networks.model import Model
from featviz.objectives import channel
from featviz.objectives.reduction import patches, token_grid
from featviz.objectives.scene import Target
from featviz.optim.evaluator import Evaluator
from featviz.types import LayerInfo, Tensor


@dataclasses.dataclass(frozen=True)
class LayerMaps:
    """The maps of a layer and the objective's gradient by them, both (1, K, *grid) in float32."""

    info: LayerInfo
    maps: Tensor
    slopes: Tensor


def layer_maps(case: Case) -> LayerMaps:
    """Return the maps of the layer ``layer``, and the gradient of the objective by them.

    By default it is the last layer with positions through which a gradient flows from the objective
    to the image; of a transformer, the last such block. The patch tokens of a transformer are a
    map, without its class token. ``case.notes`` gets the layer's name.

    Raises
    ------
    FeatvizError
        As :func:`find_layers`, or if the objective has no gradient with respect to the layer.
    """
    name = case.options["layer"]
    layers = with_gradient(case, find_layers(case.evaluator, name))
    if not layers:
        raise FeatvizError(
            f"{case.evaluator.objective} has no gradient with respect to the maps of "
            f"{'any layer' if name is None else f'layer {name!r}: name another one'}"
        )
    modules = module_names(case.evaluator.model.net)
    info = _preferred(layers, modules, len(case.evaluator.size))
    case.notes["layer"] = info.name
    activations: list[Tensor] = []

    def hook(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        activations.append(output)
        return output.clone()  # later operations may change it in place

    handle = modules[info.name].register_forward_hook(hook)
    try:
        with _hooks_run(case.evaluator), torch.enable_grad():
            value = case.evaluator(case.leaf()).sum()
            (slopes,) = torch.autograd.grad(value, activations[-1])
    finally:
        handle.remove()
    # Gradients with respect to a layer are scaled, like all inside the network.
    slopes = slopes.float() / case.evaluator.gradient_scale
    maps, slopes = (
        on_grid(case.evaluator, info, tensor.detach().float().movedim(info.axis, 1))
        for tensor in (activations[-1], slopes)
    )
    return LayerMaps(info, maps, slopes)


@contextlib.contextmanager
def _hooks_run(evaluator: Evaluator) -> Iterator[None]:
    """Run the modules of the network, and with them their hooks, instead of a trace of them."""
    traced, evaluator.forward.traced = evaluator.forward.traced, False
    try:
        yield
    finally:
        evaluator.forward.traced = traced


def _preferred(layers: list[LayerInfo], modules: dict[str, nn.Module], axes: int) -> LayerInfo:
    """Return the last layer; of tokens, the last block: an item of a stack, with layers inside."""
    if len(layers[-1].positions) == axes:
        return layers[-1]
    blocks = [
        info
        for info in layers
        if info.name.rpartition(".")[2].isdecimal() and any(modules[info.name].children())
    ]
    return (blocks or layers)[-1]


def on_grid(evaluator: Evaluator, info: LayerInfo, units: Tensor) -> Tensor:
    """Return activations (B, C, *positions) on the grid of the image, without class tokens."""
    if units.ndim == len(evaluator.size) + 2:
        return units
    return patches(units, info, Target(evaluator.model, evaluator.size, 1))


def maps_in_batches(model: Model, layer: str, images: Tensor) -> Iterator[Tensor]:
    """Yield the maps (B, C, *grid) of a layer for images (N, C, *size), a batch at a time.

    Raises
    ------
    FeatvizError
        If the layer has no maps.
    """
    evaluator = Evaluator(model, channel(layer, 0), tuple(images.shape[2:]))
    (info,) = find_layers(evaluator, layer)
    for some in images.split(evaluator.batch_size):
        with torch.no_grad():
            units = model.activations(some.to(model.device), layer)[layer]
        yield on_grid(evaluator, info, units.movedim(info.axis, 1))


def with_gradient(case: Case, layers: list[LayerInfo]) -> list[LayerInfo]:
    """Return the layers through which a gradient flows from the objective to the image.

    A layer that runs before those that the objective reads need not lead to them.
    """
    modules = module_names(case.evaluator.model.net)
    reached: set[str] = set()
    calls: dict[str, int] = {}

    def reach(info: LayerInfo, gradient: Tensor) -> None:
        # Behind the last attention, only the class token leads to a classifier.
        if info.axis == 1 or on_grid(case.evaluator, info, gradient.movedim(info.axis, 1)).any():
            reached.add(info.name)

    def watch(info: LayerInfo) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            calls[info.name] = calls.get(info.name, 0) + 1
            if calls[info.name] == info.calls and output.requires_grad:  # the last call counts
                output.register_hook(lambda gradient: reach(info, gradient))

        return hook

    handles = [modules[info.name].register_forward_hook(watch(info)) for info in layers]
    try:
        with _hooks_run(case.evaluator):
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
    last = max((table.position(n) for n in evaluator.needs), default=0)
    modules = module_names(evaluator.model.net)

    axes = len(evaluator.size)

    def fits(info: LayerInfo) -> bool:
        maps = info.axis == 1 and len(info.positions) == axes
        maps = maps or info.is_map(axes) or (axes == 2 and _has_grid(info, evaluator))
        return maps and math.prod(info.positions) > 1 and info.name in modules

    if name is not None:
        info = table.find(name)
        if name not in modules:
            raise FeatvizError(
                f"an activation map needs maps of a module: {name!r} is not; name a module"
            )
        if not fits(info):
            raise FeatvizError(
                f"an activation map needs maps (C, *positions) or patch tokens of a module: layer "
                f"{name!r} has shape {info.shape}"
            )
        if table.position(name) > last:
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
            "tokens: an activation map needs one; use another method"
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
