"""What relevance does at operations without weights.

==============  ====================================================================================
moved           the values are copied or selected (reshape, slice, pad, concatenate, max-pooling):
                relevance goes where they came from
activation      element by element: an input has the relevance of its output (Bach2015)
summed          linear without weights (addition, mean, average pooling, interpolation): shared out
                by the contributions, the constants among them keep theirs
gated           a product of activations: all goes to the signal and nothing to its gate, a sigmoid
                or softmax (Arras2017); two signals have half each
attended        a product of matrices of activations: all goes to the values and nothing to the
                attention weights, as for gates (Ali2022); two signals have half each
normalized      layer-norm and its like: as if mean and deviation were those of a linear layer, the
                deviation held constant (Ali2022)
==============  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from featviz.attribution.propagation.network_graph import (
    NetworkGraph,
    Values,
    arguments,
    call,
    operation,
    transpose,
)
from featviz.attribution.propagation.normalized_layers import NORMALIZED, normalized
from featviz.attribution.propagation.relevance_rules import stabilized
from featviz.types import Tensor


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MOVED = _names(
    "view reshape _unsafe_view flatten unflatten permute transpose t numpy_T mT mH movedim "
    "moveaxis swapaxes squeeze unsqueeze slice select narrow index index_select gather take "
    "getitem cat concat concatenate stack hstack vstack split split_with_sizes tensor_split chunk "
    "unbind clone contiguous alias to _to_copy type_as expand expand_as repeat tile roll flip "
    "rot90 pixel_shuffle pixel_unshuffle channel_shuffle unfold im2col pad constant_pad_nd "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d max_pool1d max_pool2d max_pool3d max_pool1d_with_indices "
    "max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d amax max maximum minimum where masked_fill tril triu "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d"
)
ACTIVATIONS = _names(
    "abs relu relu6 hardtanh clamp clamp_min clamp_max threshold leaky_relu prelu rrelu elu selu "
    "celu gelu silu mish softplus hardswish tanh sigmoid hardsigmoid"
)
#: Activation functions whose slope is 0 or 1.
RELUS = _names("relu relu6 hardtanh clamp clamp_min threshold")
SUMMED = _names(
    "add sub rsub neg mean sum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d addcmul cumsum upsample_linear1d upsample_bilinear2d "
    "upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"
)
PRODUCTS = _names("matmul bmm mm __matmul__ einsum")
#: Element by element, or nearly: the image stays an image through them.
AFFINE = _names("add sub rsub neg mul div true_divide addcmul")
DROPOUTS = _names("dropout feature_dropout alpha_dropout feature_alpha_dropout")
_GATES = _names("sigmoid hardsigmoid softmax _softmax")
_CLIPS = _names("hardtanh relu6 clamp")

#: Relevance of each operation that an operation takes values of.
Parts = list[tuple[fx.Node, Tensor]]


def pull(node: fx.Node, values: Values, sources: list[fx.Node], cotangent: Any) -> list[Tensor]:
    """Return the gradients of the operation's inputs, given those of its outputs."""

    def run(*inputs: Tensor) -> Any:
        output = call(node, values, dict(zip(sources, inputs, strict=True)))
        return output if isinstance(output, torch.Tensor) else _floats(output)

    back = transpose(run, *(values[source] for source in sources))
    return list(back(cotangent if isinstance(cotangent, torch.Tensor) else _floats(cotangent)))


def _floats(several: Any) -> tuple[Tensor, ...]:
    return tuple(v for v in several if v is not None and v.is_floating_point())


def is_inactive_dropout(node: fx.Node) -> bool:
    """Return whether an operation is the dropout of a network in eval mode: its input."""
    return operation(node) in DROPOUTS and arguments(node)[2:3] == [False]


def operation_rule(
    network: NetworkGraph, node: fx.Node, *, positive: bool = False
) -> Callable[[Values, fx.Node, Any], Parts] | None:
    """Return the rule of an operation: from values, node and relevance to that of its sources.

    None if there is no rule for it. With ``positive``, sums are shared out by their positive
    contributions, and what has contributions of both signs by its nature has no rule.
    """
    name = operation(node)
    sources = network.sources(node)
    if is_inactive_dropout(node):
        return _activation
    if name in MOVED:
        return lambda values, node, relevance: moved(network, values, node, relevance)
    if name in ACTIVATIONS and len(sources) == 1:
        return _activation
    if name == "addcmul" and all(map(network.depends, arguments(node)[1:])):
        return None
    if is_scaling(network, node):
        return _activation  # by constants: a contribution of one
    if name in SUMMED:
        summed = _summed_positively if positive else _summed
        return lambda values, node, relevance: summed(network, values, node, relevance)
    if name in ("mul", "div", "true_divide"):
        if name != "mul" and network.depends(arguments(node)[1]):
            # What it is divided by is a norm: as for the deviation of layer-norm.
            if not network.depends(arguments(node)[0]):
                return None
            signals = [arguments(node)[0]]
        else:
            signals = _signals(network, node)
        return lambda values, node, relevance: _gated(values, node, relevance, signals)
    if positive:
        return None
    if name in PRODUCTS and len(sources) <= 2:
        signals = _signals(network, node)
        return lambda values, node, relevance: _gated(values, node, relevance, signals)
    if name == "scaled_dot_product_attention":
        signals = [arguments(node)[2]]
        return lambda values, node, relevance: _gated(values, node, relevance, signals)
    if name == "instance_norm" and not arguments(node)[5]:
        return None  # by running statistics
    if name in NORMALIZED and len(sources) == 1:
        return normalized
    return None


def moved(network: NetworkGraph, values: Values, node: fx.Node, relevance: Any) -> Parts:
    """Send relevance to where values were copied or selected from."""
    sources = [s for s in network.sources(node) if _is_float(values[s])]
    if operation(node) == "getitem" and not isinstance(values[sources[0]], torch.Tensor):
        (source,), index = sources, arguments(node)[1]  # an item of several tensors
        several: Any = [torch.zeros_like(v) if _is_float(v) else None for v in values[source]]
        several[index] = relevance
        return [(source, several)]
    return list(zip(sources, pull(node, values, sources, relevance), strict=True))


def _is_float(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.is_floating_point()
    return isinstance(value, (tuple, list))


def is_scaling(network: NetworkGraph, node: fx.Node) -> bool:
    """Return whether an operation multiplies one tensor by constants, element by element."""
    if operation(node) not in ("mul", "div", "true_divide", "neg"):
        return False
    sources = network.sources(node)
    same_shape = len(sources) == 1 and network.shapes[sources[0]] == network.shapes[node]
    numerator = operation(node) in ("mul", "neg") or network.depends(arguments(node)[0])
    return same_shape and numerator and sum(a in sources for a in arguments(node)) == 1


def _activation(values: Values, node: fx.Node, relevance: Tensor) -> Parts:
    return [(arguments(node)[0], relevance)]


def _summed(network: NetworkGraph, values: Values, node: fx.Node, relevance: Tensor) -> Parts:
    sources = network.sources(node)
    ratios = relevance / stabilized(values[node])
    parts = pull(node, values, sources, ratios)
    return [(s, values[s] * part) for s, part in zip(sources, parts, strict=True)]


def _summed_positively(
    network: NetworkGraph, values: Values, node: fx.Node, relevance: Tensor
) -> Parts:
    sources = network.sources(node)
    signs = pull(node, values, sources, torch.ones_like(relevance))
    parts = {
        s: values[s].where(values[s] * sign > 0, 0) for s, sign in zip(sources, signs, strict=True)
    }
    nothing = {s: torch.zeros_like(part) for s, part in parts.items()}
    total = call(node, values, parts) - call(node, values, nothing)  # without constants
    shares = pull(node, values, sources, relevance / stabilized(total))
    return [(s, parts[s] * share) for s, share in zip(sources, shares, strict=True)]


def _gated(values: Values, node: fx.Node, relevance: Tensor, signals: list[Any]) -> Parts:
    # Where a factor occurs twice, as in x * x, its gradient counts both.
    ratios = relevance / stabilized(values[node]) / len(signals)
    sources = list(dict.fromkeys(signals))
    parts = pull(node, values, sources, ratios)
    return [(s, values[s] * part) for s, part in zip(sources, parts, strict=True)]


def _signals(network: NetworkGraph, node: fx.Node) -> list[Any]:
    """Return the factors of a product that are not gates; all of them if each is, or none."""
    factors = [a for a in arguments(node) if network.depends(a)]
    if operation(node) == "einsum":
        factors = [a for a in arguments(node)[1] if network.depends(a)]
    signals = [a for a in factors if not _is_gate(network, a)]
    return signals or factors


def _is_gate(network: NetworkGraph, node: fx.Node) -> bool:
    """Return whether a value is a sigmoid or softmax, perhaps reshaped."""
    while True:
        name = operation(node)
        if name in _GATES:
            return True
        sources = network.sources(node)
        if name in _CLIPS and operation(sources[0]) == "add" and len(arguments(sources[0])) == 2:
            return not all(map(network.depends, arguments(sources[0])))  # relu6(x + 3) / 6
        if len(sources) != 1 or name not in MOVED | {"mul", "div", "dropout"}:
            return False
        (node,) = sources
