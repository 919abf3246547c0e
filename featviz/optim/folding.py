"""Rewrites that shorten a traced graph without changing what it computes.

Batch-norm is folded into the weights of the preceding convolution, zero padding into the following
convolution, and ReLUs and ReLU6s are fused with the preceding convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from featviz.networks.noise import NetworkNoise
from featviz.optim.clipping import Clipped, Switch
from featviz.optim.fusion import FusedConvolution, rowwise_linear
from featviz.types import Tensor

aten = torch.ops.aten
_CONVOLUTIONS = {aten.conv1d.default: 1, aten.conv2d.default: 2, aten.conv3d.default: 3}


def _constant(graph: fx.GraphModule, node: Any) -> Any:
    return getattr(graph, str(node.target)) if isinstance(node, fx.Node) else node


def _is_constant(node: Any) -> bool:
    return not isinstance(node, fx.Node) or node.op == "get_attr"


def _convolution(node: fx.Node) -> list[Any]:
    """Return (input, weight, bias, stride, padding, dilation, groups) of a convolution."""
    axes = _CONVOLUTIONS[node.target]  # type: ignore[index]
    defaults = [None, [1], [0], [1], 1]
    arguments = [*node.args, *defaults[len(node.args) - 2 :]]
    for position in (3, 4, 5):
        value = arguments[position]
        sizes = list(value) if isinstance(value, (list, tuple)) else [value]
        arguments[position] = sizes * axes if len(sizes) == 1 else sizes
    return arguments


def _add_constant(graph: fx.GraphModule, tensor: Tensor) -> fx.Node:
    name = f"folded{len(dict(graph.named_buffers()))}"
    graph.register_buffer(name, tensor)
    return graph.graph.get_attr(name)


def fold_batchnorm(module: fx.GraphModule) -> None:
    """Fold each batch-norm into the preceding convolution, if nothing else uses its output."""
    graph = module.graph
    for node in graph.nodes:
        if node.target is not aten.batch_norm.default or node.args[5]:
            continue
        convolution = node.args[0]
        if convolution.target not in _CONVOLUTIONS or len(convolution.users) > 1:
            continue
        source, weight, bias, *settings = _convolution(convolution)
        constants = [weight, bias, *node.args[1:5]]
        if not all(map(_is_constant, constants)) or node.args[3] is None:
            continue
        weight, bias, gain, shift, mean, variance = (_constant(module, c) for c in constants)
        scale = (variance + node.args[7]).rsqrt() * (1 if gain is None else gain)
        folded_bias = (0 if bias is None else bias) - mean
        folded_bias = folded_bias * scale + (0 if shift is None else shift)
        folded_weight = (weight * scale.view(-1, *(1,) * (weight.ndim - 1))).detach()
        with graph.inserting_before(node):
            folded = (
                _add_constant(module, folded_weight),
                _add_constant(module, folded_bias.detach()),
            )
            replacement = graph.call_function(convolution.target, (source, *folded, *settings))
        node.replace_all_uses_with(replacement)
        graph.erase_node(node)
        graph.erase_node(convolution)


def fold_noise(module: fx.GraphModule, noise: NetworkNoise) -> None:
    """Move the factors of network noise from the output of a convolution into its settings.

    :func:`fuse_activations` then scales the weights instead of the output.
    """
    graph = module.graph
    for node in graph.nodes:
        if node.target is not aten.mul.Tensor:
            continue
        source, factor = node.args
        if not (isinstance(factor, fx.Node) and _is_constant(factor)):
            continue
        factors = _constant(module, factor)
        if source.target not in _CONVOLUTIONS or len(source.users) > 1 or not noise.owns(factors):
            continue
        if all(map(_is_constant, _convolution(source)[1:3])):
            source.meta["factors"] = (*source.meta.get("factors", ()), factors)
            node.replace_all_uses_with(source)
            graph.erase_node(node)


def merge_padding(module: fx.GraphModule) -> None:
    """Merge zero padding into the following convolution.

    Where padding is asymmetric, as in TensorFlow's "same" padding, the kernel of a depthwise
    convolution is enlarged by zeros; for other convolutions that would cost more than it saves.
    """
    graph = module.graph
    for node in graph.nodes:
        if node.target not in _CONVOLUTIONS:
            continue
        source, weight, bias, stride, padding, dilation, groups = _convolution(node)
        if source.target is not aten.pad.default or len(source.users) > 1:
            continue
        mode, value = [*source.args, *["constant", None][len(source.args) - 2 :]][2:]
        amounts = list(source.args[1])
        if mode != "constant" or value not in (None, 0, 0.0) or len(amounts) > 2 * len(padding):
            continue
        low, high = amounts[::2][::-1], amounts[1::2][::-1]  # pad lists the last axis first
        if min(amounts) < 0 or len(low) < len(padding):
            continue
        if low != high:
            kernel = _constant(module, weight)
            if not _is_constant(weight) or groups != len(kernel) or set(dilation) != {1}:
                continue
            zeros = [(max(h - lo, 0), max(lo - h, 0)) for lo, h in zip(low, high, strict=True)]
            enlarged = nn.functional.pad(kernel.detach(), [n for pair in zeros[::-1] for n in pair])
            with graph.inserting_before(node):
                weight = _add_constant(module, enlarged)
        padding = [p + max(lo, hi) for p, lo, hi in zip(padding, low, high, strict=True)]
        node.args = (source.args[0], weight, bias, stride, padding, dilation, groups)
        graph.erase_node(source)


def _bounds(node: fx.Node) -> tuple[float, float] | None:
    """Return the bounds that a ReLU or ReLU6 clips to, or None for other nodes."""
    if node.target in (aten.relu.default, aten.relu_.default):
        return 0.0, float("inf")
    if node.target in (aten.relu6.default, aten.relu6_.default):
        return 0.0, 6.0
    if node.target in (aten.hardtanh.default, aten.hardtanh_.default):
        arguments: list[Any] = [*node.args, *[-1.0, 1.0][len(node.args) - 1 :]]
        low, high = arguments[1:]
        return (0.0, float(high)) if low == 0 else None
    return None


def fuse_activations(module: fx.GraphModule, switch: Switch, *, rowwise: bool) -> None:
    """Fuse ReLUs with the preceding convolution, their gradients controlled by ``switch``."""
    graph = module.graph

    def replace(node: fx.Node, layer: nn.Module, source: fx.Node) -> None:
        name = f"fused{len(list(module.children()))}"
        module.add_submodule(name, layer)
        with graph.inserting_before(node):
            replacement = graph.call_module(name, (source,))
        node.replace_all_uses_with(replacement)
        graph.erase_node(node)

    def constant(node: fx.Node) -> bool:
        return node.target in _CONVOLUTIONS and all(map(_is_constant, _convolution(node)[1:3]))

    def fused(node: fx.Node, bounds: tuple[float, float] | None) -> tuple[nn.Module, fx.Node]:
        source, weight, bias, *settings = _convolution(node)
        tensors = _constant(module, weight), _constant(module, bias)
        factors = node.meta.get("factors", ())
        return FusedConvolution(*tensors, tuple(settings), bounds, switch, factors), source

    for node in graph.nodes:
        bounds = _bounds(node)
        if bounds is None:
            continue
        previous = node.args[0]
        if constant(previous) and len(previous.users) == 1:
            replace(node, *fused(previous, bounds))
            graph.erase_node(previous)
        else:
            in_place = str(node.target).split(".")[1].endswith("_")
            replace(node, Clipped(bounds, in_place, switch), previous)
    for node in graph.nodes:
        if constant(node):
            replace(node, *fused(node, None))
        elif node.target is aten.linear.default and rowwise:
            node.target = rowwise_linear
    layers = {n: m for n, m in module.named_children() if isinstance(m, FusedConvolution)}
    for node in graph.nodes:
        if node.target in layers:
            layers[node.target].owns = len(node.users) == 1 and all(
                user.target in layers for user in node.users
            )
