"""DeepLIFT's rules: the multipliers of an operation's inputs, given those of its output.

Multipliers m stand for slopes between the baseline and the image. An operation's rule conserves
what they explain: the sum of m times the input's difference over all inputs equals the same sum
over the outputs.

============  ======================================================================================
linear        the gradient, whatever the values
activation    rescale: difference of the output divided by that of the input, element by element;
              the gradient halfway where the input hardly differs [Shrikumar2017]_
product       of two tensors: the gradient halfway, exact since each factor enters once
max-pooling   the difference goes to the position of the image's maximum where it increased, and to
              that of the baseline's where it decreased
other         the mean gradient along the straight line from the baseline's inputs to the image's,
              by quadrature (softmax, layer-norm, division)
============  ======================================================================================
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import fx

from featviz.attribution.propagation.network_graph import (
    NetworkGraph,
    Values,
    arguments,
    call,
    operation,
)
from featviz.attribution.propagation.operation_rules import (
    ACTIVATIONS,
    DROPOUTS,
    MOVED,
    PRODUCTS,
    SUMMED,
    Parts,
    pull,
)
from featviz.attribution.propagation.weighted_layers import WeightedLayer
from featviz.errors import FeatvizError
from featviz.types import Tensor

#: Differences below this are taken for none, relative to the largest value.
SMALLEST = 1e-6
#: Points of the quadrature.
POINTS = 16
_POOLS = frozenset(f"max_pool{n}d" for n in (1, 2, 3)) | {
    f"adaptive_max_pool{n}d" for n in (1, 2, 3)
}
_SELECTIONS = frozenset(["max", "amax", "maximum", "minimum"])


@functools.cache
def quadrature(points: int) -> list[tuple[float, float]]:
    """Return the positions in [0, 1] and weights of a Gauss-Legendre quadrature."""
    positions, weights = np.polynomial.legendre.leggauss(points)
    return [(float(1 + p) / 2, float(w) / 2) for p, w in zip(positions, weights, strict=True)]


def multipliers(
    network: NetworkGraph,
    layers: dict[fx.Node, WeightedLayer],
    node: fx.Node,
    image: Values,
    base: Values,
    multiplier: Any,
) -> Parts:
    """Return the multipliers of an operation's inputs.

    ``image`` and ``base`` are what all operations return for the image and for the baseline.

    Raises
    ------
    FeatvizError
        If the operation is not differentiable, or selects other values for the baseline.
    """
    name, sources = operation(node), _floats(network, node, image)
    if node in layers:
        layer = layers[node]
        return [(layer.source, layer.back(image[layer.source], layer.weight, multiplier))]
    if name == "getitem" and not isinstance(image[arguments(node)[0]], torch.Tensor):
        several: Any = [torch.zeros_like(v) for v in image[arguments(node)[0]]]
        several[arguments(node)[1]] = multiplier
        return [(arguments(node)[0], several)]
    if name in _POOLS:
        return _max_pool(node, image, base, sources[0], multiplier)
    if name in MOVED - _SELECTIONS or name in SUMMED | DROPOUTS or _divides(network, node):
        _same_selection(network, node, image, base)
        return list(zip(sources, pull(node, image, sources, multiplier), strict=True))
    if name in ACTIVATIONS and len(sources) == 1:
        return [(sources[0], _rescaled(node, image, base, sources[0], multiplier))]
    if name == "mul" or (name in PRODUCTS and len(sources) <= 2):
        return _mean_gradient(node, image, base, sources, multiplier, 1)
    return _mean_gradient(node, image, base, sources, multiplier, POINTS)


def _divides(network: NetworkGraph, node: fx.Node) -> bool:
    return operation(node) == "div" and not network.depends(arguments(node)[1])


def _floats(network: NetworkGraph, node: fx.Node, values: Values) -> list[fx.Node]:
    found = []
    for source in network.sources(node):
        value = values[source]
        if not isinstance(value, torch.Tensor) or value.is_floating_point():
            found.append(source)
    return found


def _same_selection(network: NetworkGraph, node: fx.Node, image: Values, base: Values) -> None:
    """Raise unless masks and indices, which select values, are the baseline's, too."""
    for source in network.sources(node):
        value = image[source]
        selects = isinstance(value, torch.Tensor) and not value.is_floating_point()
        if selects and not torch.equal(value, base[source]):
            raise FeatvizError(
                f"deep_lift has no rule for the operation {operation(node)}, which selects other "
                "values for the baseline than for the image: use integrated_gradients"
            )


def _rescaled(
    node: fx.Node, image: Values, base: Values, source: fx.Node, multiplier: Tensor
) -> Tensor:
    difference = image[source] - base[source]
    scale = torch.maximum(image[source].abs(), base[source].abs()).clamp_min(1)
    differs = difference.abs() > SMALLEST * scale
    slope = (image[node] - base[node]) / difference.where(differs, 1)
    halfway = {source: (image[source] + base[source]) / 2}
    (gradient,) = pull(node, {**image, **halfway}, [source], torch.ones_like(multiplier))
    return multiplier * slope.where(differs, gradient)


def _mean_gradient(
    node: fx.Node,
    image: Values,
    base: Values,
    sources: list[fx.Node],
    multiplier: Any,
    points: int,
) -> Parts:
    """Return the mean gradient from the baseline's inputs to the image's; exact for products."""
    total: list[Tensor] = [torch.zeros_like(image[source]) for source in sources]
    for position, weight in quadrature(points):
        between = {s: torch.lerp(base[s], image[s], position) for s in sources}
        try:
            found = pull(node, {**image, **between}, sources, multiplier)
        except RuntimeError as error:
            raise FeatvizError(
                f"deep_lift has no rule for the operation {operation(node)}: use "
                "integrated_gradients"
            ) from error
        total = [t + weight * part for t, part in zip(total, found, strict=True)]
    return list(zip(sources, total, strict=True))


def _max_pool(
    node: fx.Node, image: Values, base: Values, source: fx.Node, multiplier: Tensor
) -> Parts:
    increase = image[node] - base[node]
    total = torch.zeros_like(image[source])
    for values, other, chosen in (
        (image, base, increase >= 0),
        (base, image, increase < 0),
    ):
        # By how much the inputs at the maxima of ``values`` differ: nowhere less than the outputs.
        where_maximal = _gathered(node, values, source, other[source])
        difference = image[node] - where_maximal if values is image else where_maximal - base[node]
        share = increase / difference.where(difference != 0, 1)
        (part,) = pull(node, values, [source], (multiplier * share).where(chosen, 0))
        total = total + part
    return [(source, total)]


def _gathered(node: fx.Node, values: Values, source: fx.Node, inputs: Tensor) -> Tensor:
    """Return ``inputs`` at the positions of the maxima of ``values``."""

    def run(x: Tensor) -> Any:
        return call(node, values, {source: x})

    result: Any = torch.func.jvp(run, (values[source],), (inputs,))
    return result[1]
