"""Which rule each layer has: composites, as texts.

A composite lists rules by where they apply, the first that fits decides:

    first=flat, convolution=zplus, linear=epsilon
    first=box, below:0.5=gamma:0.25, epsilon:0.01

``first`` are the layers that see the image itself, ``below:0.5`` the first half of the layers with
weights in execution order, ``convolution``, ``linear`` and ``normalization`` (batch-norm that does
not follow a convolution) layers of that kind; a rule alone applies to the rest, which otherwise
have ``epsilon``. ``normalization`` has ``epsilon`` unless named, since the other rules assume a sum
of many inputs.
"""

from __future__ import annotations

import dataclasses

from torch import fx

from featviz.attribution.propagation.network_graph import NetworkGraph
from featviz.attribution.propagation.relevance_rules import RULES, Rule
from featviz.attribution.propagation.weighted_layers import WeightedLayer
from featviz.errors import FeatvizError, did_you_mean

#: Composites of the literature. [Montavon2019]_, [Kohlbrenner2020]_
COMPOSITES = {
    "epsilon_plus": "convolution=zplus, linear=epsilon",
    "epsilon_plus_flat": "first=flat, convolution=zplus, linear=epsilon",
    "epsilon_plus_box": "first=box, convolution=zplus, linear=epsilon",
    "epsilon_alpha2_beta1": "convolution=alpha_beta:2:1, linear=epsilon",
    "epsilon_alpha2_beta1_flat": "first=flat, convolution=alpha_beta:2:1, linear=epsilon",
    "epsilon_gamma_box": "first=box, convolution=gamma:0.25, linear=epsilon",
    "zero_epsilon_gamma_box": "first=box, below:0.5=gamma:0.25, below:0.9=epsilon:0.01, zero",
}
_PLACES = ("first", "below", "convolution", "linear", "normalization")


@dataclasses.dataclass(frozen=True)
class Clause:
    """A rule and where it applies: a place, and for ``below`` up to which fraction of the depth."""

    place: str
    rule: Rule
    fraction: float = 1.0


def parse_composite(text: str) -> list[Clause]:
    """Return the clauses of a composite, given by name or written out.

    Raises
    ------
    FeatvizError
        For an unknown composite, place or rule.
    """
    return [_clause(word.strip()) for word in COMPOSITES.get(text.strip(), text).split(",")]


def _clause(text: str) -> Clause:
    place, equals, rule = text.rpartition("=")
    if not equals:
        name = rule.split(":")[0]
        if name not in RULES:
            known = [*RULES, *COMPOSITES]
            hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
            raise FeatvizError(f"no rule {name!r}{hint}")
        return Clause("rest", Rule.parse(rule))
    name, colon, number = place.strip().partition(":")
    if bool(colon) != (name == "below") and name in _PLACES:
        raise FeatvizError(
            f"{place.strip()}={rule}: only below takes a fraction of the depth, below:0.5={rule}"
        )
    if name not in _PLACES:
        hint = did_you_mean(name, _PLACES) or f"; known: {', '.join(_PLACES)}"
        raise FeatvizError(f"no place {place.strip()!r} for a rule{hint}")
    try:
        fraction = float(number) if colon else 1.0
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction <= 1:
        raise FeatvizError(f"{place.strip()}: a fraction of the depth is between 0 and 1")
    return Clause(name, Rule.parse(rule), fraction)


def assign_rules(
    network: NetworkGraph, layers: dict[fx.Node, WeightedLayer], clauses: list[Clause]
) -> dict[fx.Node, Rule]:
    """Return the rule of each layer.

    Raises
    ------
    FeatvizError
        If ``box`` falls on a layer that does not see the image itself.
    """
    first = first_layers(network, layers)
    rules = {}
    for position, (node, layer) in enumerate(layers.items()):
        rule = Rule.parse("epsilon")
        for clause in clauses:
            if (
                clause.place == layer.kind
                or (clause.place == "first" and node in first)
                or (clause.place == "below" and position < clause.fraction * len(layers))
                or (clause.place == "rest" and layer.kind != "normalization")
            ):
                rule = clause.rule
                break
        if rule.name == "box" and node not in first:
            raise FeatvizError(
                "the rule box needs pixels as inputs: use it for the first layer, first=box"
            )
        rules[node] = rule
    return rules


def first_layers(
    network: NetworkGraph, layers: dict[fx.Node, WeightedLayer]
) -> dict[fx.Node, WeightedLayer]:
    """Return the layers before which no other has weights."""
    return {
        node: layer
        for node, layer in layers.items()
        if not any(other in layers for other in network.ancestors(layer.source))
    }
