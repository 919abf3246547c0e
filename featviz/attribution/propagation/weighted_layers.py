"""Operations with weights: convolutions, linear layers and batch-norm, all as z = x * w + b."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch
from torch import fx
from torch.nn import functional as F

from featviz.attribution.propagation.network_graph import (
    NetworkGraph,
    arguments,
    operation,
    transpose,
)
from featviz.errors import FeatvizError
from featviz.types import Tensor

Kind = Literal["convolution", "linear", "normalization"]

_CONVOLUTIONS = {
    "conv1d": 1, "conv2d": 2, "conv3d": 3,
    "conv_transpose1d": 1, "conv_transpose2d": 2, "conv_transpose3d": 3,
}  # fmt: skip
_PRODUCTS = ("mm", "matmul", "bmm", "__matmul__")


@dataclasses.dataclass(frozen=True)
class WeightedLayer:
    """A layer that is linear in its input up to a bias: ``apply(x, weight) + bias``.

    ``apply`` is linear in both arguments. ``bias`` broadcasts to the output; None is no bias.
    ``source`` is the operation whose value is x; zero padding is part of ``apply``.
    """

    node: fx.Node
    source: fx.Node
    kind: Kind
    weight: Tensor
    bias: Tensor | None
    apply: Callable[[Tensor, Tensor], Tensor]

    def back(self, inputs: Tensor, weight: Tensor, cotangent: Tensor) -> Tensor:
        """Return the transpose of ``x -> apply(x, weight)`` on ``cotangent``, shaped as inputs."""
        return transpose(lambda x: self.apply(x, weight), inputs)(cotangent)[0]


def weighted_layers(network: NetworkGraph) -> dict[fx.Node, WeightedLayer]:
    """Return the layers with weights, by their node, in execution order."""
    layers = (_weighted(network, node) for node in network.nodes)
    return {layer.node: layer for layer in layers if layer is not None}


def _weighted(network: NetworkGraph, node: fx.Node) -> WeightedLayer | None:
    name = operation(node)
    if name in _CONVOLUTIONS:
        return _convolution(network, node, _CONVOLUTIONS[name])
    if name == "linear":
        given = [*arguments(node), None][:3]
        if any(map(network.depends, given[1:])):
            return None
        weight, bias = (network.constant(a) for a in given[1:])
        return WeightedLayer(node, arguments(node)[0], "linear", weight, bias, F.linear)
    if name == "addmm" and not node.kwargs and not any(map(network.depends, arguments(node)[::2])):
        bias, weight = (network.constant(a) for a in arguments(node)[::2])
        return WeightedLayer(node, arguments(node)[1], "linear", weight, bias, torch.mm)
    if name in _PRODUCTS:
        first, second = arguments(node)
        if network.depends(first) and not network.depends(second):
            weight = network.constant(second)
            return WeightedLayer(node, first, "linear", weight, None, torch.matmul)
        if network.depends(second) and not network.depends(first):
            weight = network.constant(first)
            return WeightedLayer(
                node, second, "linear", weight, None, lambda x, w: torch.matmul(w, x)
            )
    if name == "batch_norm":
        return _batch_norm(network, node)
    return None


def _convolution(network: NetworkGraph, node: fx.Node, axes: int) -> WeightedLayer | None:
    source, weight_node, *rest = arguments(node)
    if network.depends(weight_node) or not network.depends(source):
        return None
    bias_node, *settings = rest or [None]
    weight, bias = network.constant(weight_node), network.constant(bias_node)
    convolve = getattr(F, operation(node))
    padding = _zero_padding(network, source)
    if padding is not None:
        source = arguments(source)[0]

    def apply(x: Tensor, w: Tensor) -> Tensor:
        if padding is not None:
            x = F.pad(x, padding)
        return convolve(x, w, None, *settings)

    shaped = None if bias is None else bias.view(-1, *(1,) * axes)
    return WeightedLayer(node, source, "convolution", weight, shaped, apply)


def _zero_padding(network: NetworkGraph, node: fx.Node) -> list[int] | None:
    """Return the padding if the operation pads with zeros, and only one convolution takes it."""
    if operation(node) not in ("pad", "constant_pad_nd") or len(node.users) > 1:
        return None
    _, padding, *rest = arguments(node)
    constants = [r for r in rest if r != "constant"]
    if any(r not in (None, 0, 0.0) for r in constants) or node.kwargs:
        return None
    return list(padding)


def _batch_norm(network: NetworkGraph, node: fx.Node) -> WeightedLayer:
    source, *constants = arguments(node)[:5]
    gain, shift, mean, variance = (network.constant(c) for c in constants)
    if arguments(node)[5] or mean is None:
        raise FeatvizError(
            "propagation needs batch-norm with running statistics: the network normalizes by the "
            "statistics of the batch"
        )
    scale = (variance + arguments(node)[7]).rsqrt()
    scale = scale if gain is None else scale * gain
    bias = -mean * scale if shift is None else shift - mean * scale
    shape = (-1, *(1,) * (len(network.shapes[source]) - 2))
    return WeightedLayer(
        node, source, "normalization", scale.view(shape), bias.view(shape), torch.mul
    )
