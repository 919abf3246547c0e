"""Which part of its input a layer responds to: patterns, fitted to the activations of images.

A linear layer y = w x + b is built to cancel what distracts, so that w is not the direction in
which the signal lies. The pattern a is: the regression of x on y,

    a = (E₊[x y] − E₊[x] E[y]) / w (E₊[x y] − E₊[x] E[y]),

E₊ over the inputs with y > 0 if a ReLU follows, and over all if none does: the covariance of x and
y over the variance of y. w a = 1 for every unit. [Kindermans2018]_
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import fx

from featviz.attribution.propagation.network_graph import (
    NetworkGraph,
    Values,
    operation,
    transpose,
)
from featviz.attribution.propagation.operation_rules import RELUS
from featviz.attribution.propagation.weighted_layers import WeightedLayer
from featviz.errors import FeatvizError
from featviz.types import Tensor

#: A variation below this share of the products that it is a difference of is rounding.
_ROUNDING = 1e-5


class _Moments:
    """Sums over inputs and positions, for each unit of a layer."""

    def __init__(self, layer: WeightedLayer, rectified: bool) -> None:
        self.layer, self.rectified = layer, rectified
        shape = layer.weight.shape
        self.xy, self.x = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
        self.y = torch.zeros(shape[0], dtype=torch.float64)
        self.all, self.counted = torch.zeros_like(self.y), torch.zeros_like(self.y)

    def add(self, values: Values) -> None:
        layer, y = self.layer, values[self.layer.node]
        counted = (y > 0).to(y) if self.rectified else torch.ones_like(y)
        x = values[layer.source]
        back = transpose(lambda w: layer.apply(x, w), layer.weight)
        self.xy += back(counted * y)[0].double().cpu()
        self.x += back(counted)[0].double().cpu()
        self.y += self._by_unit(y)
        self.all += self._by_unit(torch.ones_like(y))
        self.counted += self._by_unit(counted)

    def _by_unit(self, values: Tensor) -> Tensor:
        axis = -1 if self.layer.kind == "linear" else 1
        return values.movedim(axis, 0).flatten(1).double().sum(1).cpu()

    def weights(self) -> Tensor:
        """Return w times a, entry by entry; 0 for units that do not vary over the images."""
        wide = (-1, *(1,) * (self.xy.ndim - 1))
        counted = self.counted.clamp_min(1).view(wide)
        mean = (self.y / self.all).view(wide)
        weight = self.layer.weight.double().cpu()
        parts = weight * (self.xy - self.x * mean) / counted
        size = (weight * self.xy).abs() + (weight * self.x * mean).abs()
        total = parts.flatten(1).sum(1)
        varies = total.abs() > _ROUNDING * (size / counted).flatten(1).sum(1)
        total = torch.where(varies, total, torch.inf)
        return (parts / total.view(wide)).to(self.layer.weight)


def fit_patterns(
    network: NetworkGraph, layers: dict[fx.Node, WeightedLayer], images: Iterable[Tensor]
) -> dict[fx.Node, Tensor]:
    """Return the weights of convolutions and linear layers times their patterns.

    ``images`` are (1, C, *size) in [0, 1]; memory does not grow with their number.

    Raises
    ------
    FeatvizError
        If a layer has weights whose units are not their first axis, there is no image, or no unit
        of a layer varies over the images.
    """
    moments = {}
    for node, layer in layers.items():
        if layer.kind == "normalization":
            continue
        name = operation(node)
        if name not in ("conv1d", "conv2d", "conv3d", "linear"):
            raise FeatvizError(f"there are no patterns for the operation {name}: use lrp")
        after = [operation(user) for user in node.users]
        moments[node] = _Moments(layer, bool(after) and all(n in RELUS for n in after))
    count = 0
    for image in images:
        values = network.run(image)
        for each in moments.values():
            each.add(values)
        count += 1
    if not count:
        raise FeatvizError("there are no images to fit patterns to")
    patterns = {node: each.weights() for node, each in moments.items()}
    for node, pattern in patterns.items():
        if not pattern.any():
            raise FeatvizError(
                f"patterns need images that differ: no unit of {node} varies over {count} image(s)"
            )
    return patterns
