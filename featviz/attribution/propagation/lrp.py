"""Layer-wise relevance propagation, and deep Taylor decomposition as a choice of its rules."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Sequence

from torch import fx

from featviz.attribution.case import Case
from featviz.attribution.propagation.composites import assign_rules, first_layers, parse_composite
from featviz.attribution.propagation.concepts import chosen_units, unit_mask
from featviz.attribution.propagation.network_graph import NetworkGraph, Values
from featviz.attribution.propagation.relevance import propagate
from featviz.attribution.propagation.relevance_rules import Rule
from featviz.attribution.propagation.start import gradients, traced
from featviz.attribution.propagation.weighted_layers import WeightedLayer, weighted_layers
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.objectives import objective as as_objective
from featviz.types import Tensor

#: Up to which share of the positive start a negative one is rounding.
_NEGLIGIBLE = 1e-3


def lrp(case: Case) -> Tensor:
    """Return the relevance of every pixel by the rules of a composite. [Bach2015]_.

    The relevance starts as a ∂o/∂a at the activations a that the objective reads: for a channel,
    neuron or class logit the sum is the objective's value. Every operation then passes on what it
    receives, but for what biases take, so that

        Σ relevance of pixels + Σ relevance of biases = Σ a ∂o/∂a

    up to stabilized denominators, constants that are added, and outputs that nothing contributes
    to. ``notes`` has both sums: ``relevance`` and ``bias_relevance``.

    With ``through``, only what flows through some units of a layer goes on to the pixels, and
    ``notes["through_relevance"]`` is its sum there. Relevance that takes a shortcut around the
    layer does not flow through it. [Achtibat2023]_

    Raises
    ------
    FeatvizError
        If an operation has no rule, the relevance is not finite, or the objective does not depend
        on the layer of ``through``.
    """
    through = case.options["through"]
    units = [] if through is None else chosen_units(as_objective(through), "through")
    layer_names = list(dict.fromkeys(unit.layer for unit in units))
    run = _started(case, layer_names)
    case.notes["relevance"] = _total(run.starts.values())
    starts = run.starts
    if units:
        node = run.network.outputs[units[0].layer]
        here = _at_layer(case, run, units[0].layer)
        here = here * unit_mask(case.evaluator.model, case.evaluator.size, units, here.shape)
        starts = {node: here}
        case.notes["through_relevance"] = _total(starts.values())
    found = propagate(run.network, run.values, starts, run.layers, run.rules)
    case.notes["bias_relevance"] = found.bias
    return _finite(found.values, "lrp: use another rule, epsilon_plus or a larger epsilon")


def layer_relevance(case: Case, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the relevance of some layers, each shaped as its activations for one image.

    Raises
    ------
    FeatvizError
        As :func:`lrp`, or if the objective does not depend on a layer.
    """
    run = _started(case, names)
    remedy = "lrp: use another rule, epsilon_plus or a larger epsilon"
    return {name: _finite(_at_layer(case, run, name), remedy) for name in names}


@dataclasses.dataclass(frozen=True)
class _Run:
    """A network run on an image, where relevance starts and what the rule of each layer is."""

    network: NetworkGraph
    values: Values
    layers: dict[fx.Node, WeightedLayer]
    rules: dict[fx.Node, Rule]
    starts: dict[fx.Node, Tensor]


def _started(case: Case, names: Sequence[str]) -> _Run:
    clauses = parse_composite(case.options["rule"])
    network = traced(case, *names)
    values = network.run(case.image)
    layers = weighted_layers(network)
    rules = assign_rules(network, layers, clauses)
    starts = {node: values[node] * g for node, g in gradients(case, network, values).items()}
    return _Run(network, values, layers, rules, starts)


def _at_layer(case: Case, run: _Run, name: str) -> Tensor:
    node = run.network.outputs[name]
    if not any(node is start or node in run.network.ancestors(start) for start in run.starts):
        raise FeatvizError(
            f"no relevance of {case.evaluator.objective} flows through layer {name!r}: it does not "
            "depend on that layer"
        )
    found = propagate(run.network, run.values, run.starts, run.layers, run.rules, until=node)
    return found.values


def deep_taylor(case: Case) -> Tensor:
    """Return the deep Taylor decomposition of a positive objective. [Montavon2017]_.

    The first layer has the rule ``box``, the others ``zplus`` without their biases, and sums are
    shared out by their positive contributions: no pixel is negative. An output that is active by
    its bias alone has no root in the rule's domain and passes nothing on.

    Where a ∂o/∂a is negative at the activations that the objective reads, nothing starts; a warning
    says how much that leaves out.

    Raises
    ------
    FeatvizError
        If the objective has no positive part, or an operation has no rule.
    """
    network = traced(case)
    values = network.run(case.image)
    layers = weighted_layers(network)
    first = first_layers(network, layers)
    rules = {
        node: Rule(_deep_taylor_rule(layer.kind, node in first), bias=False)
        for node, layer in layers.items()
    }
    starts = {node: values[node] * g for node, g in gradients(case, network, values).items()}
    negative = _total(start.clamp_max(0) for start in starts.values())
    starts = {node: start.clamp_min(0) for node, start in starts.items()}
    total = _total(starts.values())
    if not total > 0:
        raise FeatvizError(
            f"deep_taylor decomposes positive values, and {case.evaluator.objective} has no "
            "positive part on this image: use lrp"
        )
    if -negative > _NEGLIGIBLE * total:
        warnings.warn(
            f"deep_taylor explains the positive part of {case.evaluator.objective}, {total:.3g}, "
            f"and leaves out the negative one, {negative:.3g}",
            FeatvizWarning,
            stacklevel=2,
        )
    case.notes["relevance"] = total
    found = propagate(network, values, starts, layers, rules, positive=True)
    return _finite(found.values, "deep_taylor: use lrp")


def _deep_taylor_rule(kind: str, first: bool) -> str:
    if kind == "normalization":
        return "zero"  # without its bias, it scales: relevance passes unchanged
    return "box" if first else "zplus"


def _total(parts: Iterable[Tensor]) -> float:
    return sum(float(part.double().sum()) for part in parts)


def _finite(relevance: Tensor, remedy: str) -> Tensor:
    if not relevance.isfinite().all():
        raise FeatvizError(f"the relevance is not finite; {remedy}")
    return relevance
