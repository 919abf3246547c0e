"""The rules of layer-wise relevance propagation for layers with weights.

Every rule sends the relevance R_k of an output to the inputs in proportion to their contributions
to a sum z_k, and keeps for the bias what the bias contributes:

    R_j = Σ_k c_jk R_k / z_k,    z_k = Σ_j c_jk + (the bias's part)

The rules differ in what counts as a contribution c_jk of x_j by the weight w_jk; x⁺ and x⁻ are the
positive and the negative part.

===========  ===========================================================  =====================
zero         x w                                                          Bach2015
epsilon      x w; z is increased in magnitude by epsilon                  Bach2015
gamma        x w, the contributions of z's own sign counted 1 + gamma     Montavon2019
             times                                                        Andeol2021
alpha_beta   alpha times the positive contributions' share minus beta     Bach2015
             times the negative ones'
zplus        the positive contributions, x⁺w⁺ + x⁻w⁻                      Montavon2017
box          x w - low w⁺ - high w⁻, for pixels in [low, high]            Montavon2017
w_square     w², whatever the input                                       Montavon2017
flat         1 for each input                                             Lapuschkin2019
===========  ===========================================================  =====================
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeAlias

import torch

from featviz.attribution.propagation.weighted_layers import WeightedLayer
from featviz.errors import FeatvizError, did_you_mean
from featviz.types import Tensor

#: Increases every denominator in magnitude, so that nothing is divided by zero.
STABILIZER = 1e-6

#: Rules by name, with the defaults of their parameters.
RULES: dict[str, tuple[float, ...]] = {
    "zero": (),
    "epsilon": (1e-6,),
    "gamma": (0.25,),
    "alpha_beta": (2.0, 1.0),
    "zplus": (),
    "box": (),
    "w_square": (),
    "flat": (),
}

#: Inputs and the weights that they are counted by.
Parts: TypeAlias = Sequence[tuple[Tensor, Tensor]]


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule of layer-wise relevance propagation; ``str`` is its text, such as ``gamma:0.25``.

    Without ``bias`` the denominators leave the bias out, so that it takes no relevance.
    """

    name: str
    parameters: tuple[float, ...] = ()
    bias: bool = True

    def __str__(self) -> str:
        return ":".join([self.name, *(f"{p:g}" for p in self.parameters)])

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Return the rule that a text such as ``gamma`` or ``alpha_beta:2:1`` names.

        Raises
        ------
        FeatvizError
            For an unknown rule, or parameters that it does not take.
        """
        name, *numbers = text.strip().split(":")
        if name not in RULES:
            hint = did_you_mean(name, RULES) or f"; known: {', '.join(RULES)}"
            raise FeatvizError(f"no rule {name!r}{hint}")
        defaults = RULES[name]
        try:
            parameters = tuple(float(number) for number in numbers)
        except ValueError:
            raise FeatvizError(f"rule {text.strip()!r}: parameters must be numbers") from None
        if len(parameters) > len(defaults):
            raise FeatvizError(f"rule {name} takes {len(defaults)} parameter(s), not {text!r}")
        parameters += defaults[len(parameters) :]
        if not all(math.isfinite(p) and p >= 0 for p in parameters):
            raise FeatvizError(f"rule {text.strip()!r}: parameters must not be negative")
        if name == "alpha_beta" and not math.isclose(parameters[0] - parameters[1], 1):
            raise FeatvizError(f"rule {text.strip()!r}: alpha - beta must be 1")
        return cls(name, parameters)


@dataclasses.dataclass(frozen=True)
class Share:
    """The relevance of a layer's inputs, shaped like them, and what its biases took.

    ``biases`` is shaped like the outputs; None without biases.
    """

    inputs: Tensor
    biases: Tensor | None = None

    def __add__(self, other: Share) -> Share:
        biases = None
        if self.biases is not None and other.biases is not None:
            biases = self.biases + other.biases
        return Share(self.inputs + other.inputs, biases)

    def __mul__(self, factor: float) -> Share:
        return Share(self.inputs * factor, None if self.biases is None else self.biases * factor)


def stabilized(values: Tensor, epsilon: float = STABILIZER) -> Tensor:
    """Return values increased in magnitude by epsilon; zero counts as positive."""
    return values + torch.where(values < 0, -epsilon, epsilon)


def apply_rule(
    rule: Rule,
    layer: WeightedLayer,
    inputs: Tensor,
    relevance: Tensor,
    bounds: tuple[Tensor, Tensor] | None = None,
) -> Share:
    """Return the relevance of a layer's inputs, given that of its outputs.

    ``bounds`` are the lowest and the highest values that the inputs can have, for ``box``.
    """
    weight = layer.weight
    bias = layer.bias if rule.bias else None
    if rule.name in ("zero", "epsilon"):
        epsilon = rule.parameters[0] if rule.parameters else 0.0
        return _share(layer, [(inputs, weight)], bias, relevance, epsilon)
    if rule.name == "zplus":
        return _share(layer, _like(inputs, weight), _positive(bias), relevance)
    if rule.name == "alpha_beta":
        alpha, beta = rule.parameters
        positive = _share(layer, _like(inputs, weight), _positive(bias), relevance)
        if not beta:
            return positive * alpha
        negative = _share(layer, _unlike(inputs, weight), _negative(bias), relevance)
        return positive * alpha + negative * -beta
    if rule.name == "gamma":
        return _gamma(layer, inputs, bias, relevance, rule.parameters[0])
    if rule.name == "box":
        assert bounds is not None
        low, high = bounds
        parts = [(inputs, weight), (-low, weight.clamp_min(0)), (-high, weight.clamp_max(0))]
        return _share(layer, parts, None, relevance)  # b - b⁺ - b⁻ = 0
    weights = weight.square() if rule.name == "w_square" else torch.ones_like(weight)
    return _share(layer, [(torch.ones_like(inputs), weights)], None, relevance)


def _share(
    layer: WeightedLayer,
    parts: Parts,
    bias: Tensor | None,
    relevance: Tensor,
    epsilon: float = STABILIZER,
) -> Share:
    """Share out relevance by the contributions of ``parts`` and of the bias."""
    total = torch.stack([layer.apply(x, w) for x, w in parts]).sum(0)
    if bias is not None:
        total = total + bias
    # With epsilon 0, what nothing contributes to passes nothing on.
    ratios = torch.where(total == 0, 0, relevance / stabilized(total, epsilon))
    inputs = torch.stack([x * layer.back(x, w, ratios) for x, w in parts]).sum(0)
    return Share(inputs, None if bias is None else ratios * bias)


def _gamma(
    layer: WeightedLayer, inputs: Tensor, bias: Tensor | None, relevance: Tensor, gamma: float
) -> Share:
    output = layer.apply(inputs, layer.weight)
    if layer.bias is not None:
        output = output + layer.bias
    w, positive, negative = layer.weight, inputs.clamp_min(0), inputs.clamp_max(0)
    more, less = w + gamma * w.clamp_min(0), w + gamma * w.clamp_max(0)
    raised, lowered = _scaled(bias, gamma, _positive(bias)), _scaled(bias, gamma, _negative(bias))
    above = _share(
        layer, [(positive, more), (negative, less)], raised, relevance.where(output > 0, 0)
    )
    below = _share(
        layer, [(positive, less), (negative, more)], lowered, relevance.where(output < 0, 0)
    )
    return above + below


def _like(inputs: Tensor, weight: Tensor) -> Parts:
    """Return the parts whose contributions are positive."""
    parts = [(inputs.clamp_min(0), weight.clamp_min(0))]
    if (inputs < 0).any():
        parts.append((inputs.clamp_max(0), weight.clamp_max(0)))
    return parts


def _unlike(inputs: Tensor, weight: Tensor) -> Parts:
    """Return the parts whose contributions are negative."""
    parts = [(inputs.clamp_min(0), weight.clamp_max(0))]
    if (inputs < 0).any():
        parts.append((inputs.clamp_max(0), weight.clamp_min(0)))
    return parts


def _positive(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.clamp_min(0)


def _negative(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.clamp_max(0)


def _scaled(bias: Tensor | None, gamma: float, part: Tensor | None) -> Tensor | None:
    return None if bias is None or part is None else bias + gamma * part
