"""PatternAttribution: relevance along the directions in which signals lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from featviz.attribution.case import Case
from featviz.attribution.propagation.network_graph import NetworkGraph, Values, operation
from featviz.attribution.propagation.operation_rules import (
    AFFINE,
    MOVED,
    RELUS,
    is_inactive_dropout,
    is_scaling,
    moved,
)
from featviz.attribution.propagation.operation_rules import pull as gradient_of
from featviz.attribution.propagation.patterns import fit_patterns
from featviz.attribution.propagation.relevance import add, preprocessing
from featviz.attribution.propagation.relevance_rules import stabilized
from featviz.attribution.propagation.start import gradients, traced
from featviz.attribution.propagation.weighted_layers import WeightedLayer, weighted_layers
from featviz.errors import FeatvizError
from featviz.io.dataset import ImageDataset
from featviz.types import Tensor

#: Whose gradient shares out a whole.
_MEANS = {
    "mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
}  # fmt: skip


def pattern_attribution(case: Case) -> Tensor:
    """Return the gradient with every weight times its pattern, from a ∂o/∂a. [Kindermans2018]_.

    The patterns are fitted to the images of ``data``: see
    :mod:`featviz.attribution.propagation.patterns`. A unit that does not vary over them passes
    nothing on. Sums of two activations, which the paper's networks do not have, pass on to each
    what they receive by its share of the sum, as ``lrp`` does.

    Raises
    ------
    FeatvizError
        Without ``data``, if patterns cannot be fitted to it, or if an operation is neither linear
        nor a ReLU.
    """
    network = traced(case)
    if case.options["data"] is None:
        raise FeatvizError(
            "pattern_attribution fits patterns to images: give data, such as a folder"
        )
    layers = weighted_layers(network)
    key = "patterns", network
    if key not in case.shared:
        with torch.no_grad():
            case.shared[key] = fit_patterns(network, layers, _images(case))
    values = network.run(case.image)
    starts = {node: values[node] * g for node, g in gradients(case, network, values).items()}
    found = _propagate(network, values, starts, layers, case.shared[key])
    if not found.isfinite().all():
        raise FeatvizError("the relevance is not finite; pattern_attribution: give more data")
    return found


def _images(case: Case) -> Iterator[Tensor]:
    channels, size = case.image.shape[1], tuple(case.image.shape[2:])
    for item in ImageDataset(case.options["data"]):
        yield item.image(channels, size)[None].to(case.image)


def _propagate(
    network: NetworkGraph,
    values: Values,
    starts: dict[fx.Node, Tensor],
    layers: dict[fx.Node, WeightedLayer],
    patterns: dict[fx.Node, Tensor],
) -> Tensor:
    units = preprocessing(network)
    arrived: dict[fx.Node, Any] = dict(starts)
    for node in reversed(network.nodes):
        relevance = arrived.pop(node, None)
        if node is network.image:
            return torch.zeros_like(values[node]) if relevance is None else relevance
        if relevance is None:
            continue
        name, sources = operation(node), network.sources(node)
        if node in patterns:
            layer = layers[node]
            parts = [(layer.source, layer.back(values[layer.source], patterns[node], relevance))]
        elif node in layers:  # batch-norm by itself: w a = 1
            parts = [(layers[node].source, relevance)]
        elif (node in units and name in AFFINE) or is_scaling(network, node):
            parts = [(source, relevance) for source in sources]
        elif name in MOVED:
            parts = moved(network, values, node, relevance)
        elif is_inactive_dropout(node) or (len(sources) == 1 and name in RELUS | _MEANS):
            parts = [(sources[0], gradient_of(node, values, sources, relevance)[0])]
        elif name in ("add", "sub"):
            shares = relevance / stabilized(values[node])
            pulled = gradient_of(node, values, sources, shares)
            parts = [(s, values[s] * part) for s, part in zip(sources, pulled, strict=True)]
        else:
            raise FeatvizError(f"there are no patterns for the operation {name}: use lrp")
        for source, part in parts:
            arrived[source] = add(arrived[source], part) if source in arrived else part
    raise AssertionError("the image comes first")
