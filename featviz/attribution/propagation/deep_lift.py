"""DeepLIFT with the rescale rule, for one baseline or the mean over several (DeepLIFT-SHAP)."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from featviz.attribution.case import Case
from featviz.attribution.completeness import warn_if_incomplete
from featviz.attribution.propagation.multipliers import POINTS, multipliers, quadrature
from featviz.attribution.propagation.network_graph import NetworkGraph, Values
from featviz.attribution.propagation.relevance import add
from featviz.attribution.propagation.start import gradients, traced
from featviz.attribution.propagation.weighted_layers import WeightedLayer, weighted_layers
from featviz.types import Tensor


def deep_lift(case: Case) -> Tensor:
    """Return each pixel's difference from the baseline times its multiplier. [Shrikumar2017]_.

    Several baselines are averaged, which approximates Shapley values over them [Lundberg2017]_.
    The sum is the objective's value on the image minus that on the baselines. A warning says by how
    much it is not, if by more than ``tolerance`` of it.

    Raises
    ------
    FeatvizError
        If an operation cannot be differentiated, or the network cannot be traced.
    """
    network = traced(case)
    layers = weighted_layers(network)
    image = network.run(case.image)
    total = torch.zeros(case.image.shape, dtype=torch.float64)
    for baseline in case.base.split(1):
        base = network.run(baseline)
        slope = _slopes(case, network, layers, image, base)
        total += (slope * (case.image - baseline)).double().cpu()
    attributions = (total / len(case.base)).to(case.image)
    warn_if_incomplete(case, attributions, "deep_lift", "use integrated_gradients")
    return attributions


def _slopes(
    case: Case,
    network: NetworkGraph,
    layers: dict[fx.Node, WeightedLayer],
    image: Values,
    base: Values,
) -> Tensor:
    """Return the multipliers of the pixels (1, C, *size)."""
    arrived: dict[fx.Node, Any] = {}
    starts = (network.image, *network.outputs.values())
    for position, weight in quadrature(POINTS):
        between = {node: torch.lerp(base[node], image[node], position) for node in starts}
        for node, slope in gradients(case, network, between).items():
            arrived[node] = arrived.get(node, 0) + weight * slope
    for node in reversed(network.nodes):
        multiplier = arrived.pop(node, None)
        if node is network.image:
            return torch.zeros_like(image[node]) if multiplier is None else multiplier
        if multiplier is not None:
            for source, part in multipliers(network, layers, node, image, base, multiplier):
                arrived[source] = add(arrived[source], part) if source in arrived else part
    raise AssertionError("the image comes first")
