"""One row per objective of the language, for networks with layers ``first`` and ``second``.

``test_contracts.py`` runs every row through the same suite, and fails where a kind has none.
"""

from __future__ import annotations

import numpy as np
import torch

import featviz as fv
from featviz.objectives.activation_stats import fit

RNG = np.random.default_rng(7)
PICTURE = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(2))
PICTURES = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(3))
V4, W4 = RNG.normal(size=4), RNG.normal(size=4)
MASK = RNG.uniform(size=(8, 8))


def spread(activation: torch.Tensor) -> torch.Tensor:
    """The variance of a sample's activation, as a user's own function."""
    return activation.flatten(1).var(1)


def stats(layer: str, units: int) -> fv.ActivationStats:
    """Statistics that most images are far from, so that they have a gradient."""
    values = torch.rand(24, 2 * units, generator=torch.Generator().manual_seed(5)) / 10
    return fv.ActivationStats({layer: fit(values)}, (8, 8), 24)


OBJECTIVES: dict[str, list[fv.Objective]] = {
    "channel": [
        fv.channel("first", 2),
        fv.channel("first", 2, reduce="top3", where="1:5,2:7"),
        fv.channel("first", 1, reduce="norm", where=MASK),
        fv.channel("head", 2),
    ],
    "neuron": [fv.neuron("first", 2), fv.neuron("second", 4, 0, 3), fv.neuron("head", 1)],
    "layer": [fv.layer("first"), fv.layer("second", reduce="sum_square", where="0:2,:")],
    "head": [fv.head("first", 1, 2), fv.head("first", 0, 2, reduce="mean")],
    "direction": [
        fv.direction("first", V4),
        fv.direction("first", V4, cosine_power=2),
        fv.direction("first", V4, measure="cosine", position=(3, 4)),
        fv.direction("second", RNG.normal(size=(5, 4, 4))),
        fv.direction("second", RNG.normal(size=(5, 4, 4)), cosine_power=1),
    ],
    "angled_direction": [fv.angled_direction("first", V4, W4, weight=0.5)],
    "class": [fv.class_logit(1), fv.class_logit(1, layer="head")],
    "log_probability": [fv.log_probability(2)],
    "probability": [fv.probability(2)],
    "margin": [fv.margin(1), fv.margin(2, layer="head")],
    "dlr": [fv.dlr(0), fv.dlr(2, layer="head")],
    "function": [
        fv.function(spread, "first"),
        fv.function(lambda a, x: a.mean((1, 2, 3)) * x.amax((1, 2, 3)), "second", "image"),
    ],
    "text_match": [fv.text_match("two words", layer="head")],
    "multiscale_variation": [
        fv.multiscale_variation(),
        fv.multiscale_variation(scales=2, layer="second"),
    ],
    "total_variation": [fv.total_variation(), fv.total_variation(layer="second")],
    "l1": [fv.l1(0.5), fv.l1(layer="first")],
    "l2": [fv.l2(0.5), fv.l2(layer="first")],
    "activation_prior": [
        fv.activation_prior(stats("first", 4)),
        fv.activation_prior(stats("second", 5), layer="second", share=0.5),
    ],
    "area": [fv.area(0.25), fv.area(0.5, channel=2, layer="first")],
    "blur": [fv.blur()],
    "boundary_complexity": [fv.boundary_complexity(width=2)],
    "spectrum": [fv.spectrum(), fv.spectrum(2, layer="first")],
    "diversity": [fv.diversity("first"), fv.diversity("first", measure="activation")],
    "alignment": [fv.alignment("first", decay=3)],
    "activation_difference": [
        fv.activation_difference("first"),
        fv.activation_difference("first", to=PICTURE),
    ],
    "feature_match": [fv.feature_match("first", PICTURE), fv.feature_match("image", PICTURE)],
    "caricature": [fv.caricature("second", PICTURE), fv.caricature("first", PICTURE, cosine_power=2)],
    "guide_match": [fv.guide_match("first", PICTURE), fv.guide_match("second", PICTURE)],
    "style_match": [fv.style_match("first", PICTURE)],
    "sort_match": [fv.sort_match("first", PICTURES)],
    "input_difference": [fv.input_difference(PICTURE)],
    "batchnorm_match": [
        fv.batchnorm_match(),
        fv.batchnorm_match(layer="norm", over="batch"),
        fv.batchnorm_match(share=0.5),
    ],
}  # fmt: skip
ALL = [objective for rows in OBJECTIVES.values() for objective in rows]
#: Combinations that are no units.
COMBINED = [
    fv.interpolate(fv.channel("first", 0), fv.channel("second", 1)),
    fv.sort_match("first", PICTURES, of=fv.channel("second", 1)),
    fv.ramp(0, 2, 0.25, 0.75) * fv.l2(0.5),
    fv.mean([fv.class_logit(0), fv.channel("first", 1)]),
    fv.per_sample([fv.class_logit(0), fv.channel("first", 1), fv.l1()]),
]
