"""What relevance does at layer-norm and its like: their deviation is held constant. [Ali2022]_."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from featviz.attribution.propagation.network_graph import Values, operation, transpose
from featviz.attribution.propagation.relevance_rules import stabilized
from featviz.types import Tensor

#: Operations that normalize by the statistics of their own input.
NORMALIZED = frozenset({"layer_norm", "group_norm", "instance_norm", "rms_norm"})


def normalized(values: Values, node: fx.Node, relevance: Tensor) -> list[tuple[fx.Node, Tensor]]:
    """Share out relevance as if mean and deviation were those of a linear layer."""
    source = node.all_input_nodes[0]
    inputs = values[source]
    back = transpose(_with_held_deviation(node, values), inputs)
    # What the bias contributes stays with it: the denominator is the whole output.
    return [(source, inputs * back(relevance / stabilized(values[node]))[0])]


def _with_held_deviation(node: fx.Node, values: Values) -> Callable[[Tensor], Tensor]:
    """Return the linear part of a normalization, its deviation held at that of its input."""
    given: Any = fx.node.map_arg(node.args, lambda n: values[n])
    inputs, name = given[0], operation(node)
    if name == "instance_norm":
        weight, eps, groups = given[1], given[7], inputs.shape[1]
    elif name == "group_norm":
        groups, weight, _, eps = [*given[1:], *[None, None, 1e-5][len(given) - 2 :]][:4]
    else:
        weight = given[2] if len(given) > 2 else None
        axes = tuple(range(-len(given[1]), 0))
        position = 4 if name == "layer_norm" else 3
        eps = given[position] if len(given) > position else None
        eps = eps if eps is not None else (1e-5 if name == "layer_norm" else _smallest(inputs))
    if name in ("instance_norm", "group_norm"):
        shape = (inputs.shape[0], groups, -1)
        axes = (-1,)
        weight = None if weight is None else weight.view(-1, *(1,) * (inputs.ndim - 2))
    else:
        shape = tuple(inputs.shape)
    grouped = inputs.reshape(shape)
    centred = grouped if name == "rms_norm" else grouped - grouped.mean(axes, keepdim=True)
    inverse = (centred.square().mean(axes, keepdim=True) + eps).rsqrt()

    def linear(x: Tensor) -> Tensor:
        values = x.reshape(shape)
        if name != "rms_norm":
            values = values - values.mean(axes, keepdim=True)
        scaled = (values * inverse).reshape(x.shape)
        return scaled if weight is None else scaled * weight

    return linear


def _smallest(values: Tensor) -> float:
    return torch.finfo(values.dtype).eps
