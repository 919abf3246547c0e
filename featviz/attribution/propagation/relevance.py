"""Layer-wise relevance propagation: from the activations that an objective reads to the pixels."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import fx

from featviz.attribution.propagation.composites import first_layers
from featviz.attribution.propagation.network_graph import NetworkGraph, Values, operation
from featviz.attribution.propagation.operation_rules import AFFINE, MOVED, operation_rule
from featviz.attribution.propagation.relevance_rules import Rule, apply_rule
from featviz.attribution.propagation.weighted_layers import WeightedLayer
from featviz.errors import FeatvizError
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class Relevance:
    """The relevance of the pixels (1, C, *size), or of a layer, and where the rest of it went.

    ``bias`` is what the biases of layers with weights took. The remainder is what constants of
    other operations, stabilized denominators and outputs that nothing contributes to took.
    """

    values: Tensor
    bias: float


def propagate(
    network: NetworkGraph,
    values: Values,
    starts: dict[fx.Node, Tensor],
    layers: dict[fx.Node, WeightedLayer],
    rules: dict[fx.Node, Rule],
    *,
    until: fx.Node | None = None,
    positive: bool = False,
) -> Relevance:
    """Send relevance back from some operations to the image.

    Parameters
    ----------
    network, values
        The network's operations, and what they returned for the image (1, C, *size).
    starts
        The relevance of operations at which it starts, shaped like their values.
    layers, rules
        The layers with weights, and the rule of each.
    until
        The operation at which to stop, instead of the image.
    positive
        Whether operations without weights share out by positive contributions only, too.

    Raises
    ------
    FeatvizError
        If relevance arrives at an operation that has no rule; the message names it.
    """
    bounds = _bounds(network, values[network.image], layers, rules)
    pixels = preprocessing(network)
    arrived: dict[fx.Node, Any] = dict(starts)
    bias, end = 0.0, until or network.image
    for node in reversed(network.nodes):
        relevance = arrived.pop(node, None)
        if node is end:
            none = torch.zeros_like(values[node])
            return Relevance(none if relevance is None else relevance, bias)
        if relevance is None:
            continue
        if node in layers:
            layer = layers[node]
            share = apply_rule(
                rules[node], layer, values[layer.source], relevance, bounds.get(node)
            )
            if share.biases is not None:
                bias += float(share.biases.double().sum())
            parts = [(layer.source, share.inputs)]
        elif node in pixels and operation(node) in AFFINE:
            parts = [(source, relevance) for source in network.sources(node)]
        else:
            rule = operation_rule(network, node, positive=positive)
            if rule is None:
                raise FeatvizError(
                    f"relevance propagation has no rule for the operation {operation(node)}: use "
                    "integrated_gradients, or an objective before it"
                )
            parts = rule(values, node, relevance)
        for source, part in parts:
            arrived[source] = add(arrived[source], part) if source in arrived else part
    raise AssertionError("the image comes first")


def add(first: Any, second: Any) -> Any:
    if isinstance(first, torch.Tensor):
        return first + second
    return [
        a if b is None else b if a is None else a + b for a, b in zip(first, second, strict=True)
    ]


def preprocessing(network: NetworkGraph) -> set[fx.Node]:
    """Return the operations that scale and shift the pixels before anything else happens.

    Their results are the pixels in other units, so that relevance passes them unchanged.
    """
    units = {network.image}
    for node in network.nodes:
        sources = network.sources(node)
        if len(sources) >= 1 and units.issuperset(sources) and operation(node) in AFFINE | MOVED:
            scaling = operation(node) in MOVED or (
                len(sources) == 1 and network.shapes[sources[0]] == network.shapes.get(node)
            )
            if scaling:
                units.add(node)
    return units


def _bounds(
    network: NetworkGraph,
    image: Tensor,
    layers: dict[fx.Node, WeightedLayer],
    rules: dict[fx.Node, Rule],
) -> dict[fx.Node, tuple[Tensor, Tensor]]:
    """Return the lowest and highest inputs, for images in [0, 1], of the layers with rule box.

    Raises
    ------
    FeatvizError
        If something else than scaling and selection of pixels happens before such a layer.
    """
    boxed = [n for n in first_layers(network, layers) if n in rules and rules[n].name == "box"]
    if not boxed:
        return {}
    units = preprocessing(network)
    sources = {layers[node].source for node in boxed}
    for source in sources - units:
        raise FeatvizError(
            f"the rule box needs pixels as inputs, but {operation(source)} runs before the first "
            "layer: use lrp with first=flat or first=w_square"
        )
    black, white = (network.run(torch.full_like(image, v), units) for v in (0.0, 1.0))
    ends = {
        s: (torch.minimum(black[s], white[s]), torch.maximum(black[s], white[s])) for s in sources
    }
    return {node: ends[layers[node].source] for node in boxed}
