"""Objectives: the functions of a network's activations that are maximized.

The functions here build the elementary objectives of the language; numbers and operators combine
them, and the text of an objective (``str(o)``) parses back with :func:`objective`.
"""

from featviz.objectives.base import Objective
from featviz.objectives.batchnorm import batchnorm_match
from featviz.objectives.classes import (
    class_logit,
    dlr,
    log_probability,
    margin,
    probability,
)
from featviz.objectives.custom import function
from featviz.objectives.directions import angled_direction, direction
from featviz.objectives.group import mean, per_sample
from featviz.objectives.guide import guide_match
from featviz.objectives.image_text import text_match
from featviz.objectives.matching import (
    caricature,
    feature_match,
    input_difference,
    sort_match,
    style_match,
)
from featviz.objectives.measured_prior import activation_prior
from featviz.objectives.opacity import area
from featviz.objectives.penalties import (
    blur,
    boundary_complexity,
    l1,
    l2,
    spectrum,
)
from featviz.objectives.relations import activation_difference, alignment, diversity, interpolate
from featviz.objectives.schedule import ramp
from featviz.objectives.text import objective
from featviz.objectives.units import channel, head, layer, neuron
from featviz.objectives.variation import multiscale_variation, total_variation

__all__ = [
    "Objective",
    "activation_difference",
    "activation_prior",
    "alignment",
    "angled_direction",
    "area",
    "batchnorm_match",
    "blur",
    "boundary_complexity",
    "caricature",
    "channel",
    "class_logit",
    "direction",
    "diversity",
    "dlr",
    "feature_match",
    "function",
    "guide_match",
    "head",
    "input_difference",
    "interpolate",
    "l1",
    "l2",
    "layer",
    "log_probability",
    "margin",
    "mean",
    "multiscale_variation",
    "neuron",
    "objective",
    "per_sample",
    "probability",
    "ramp",
    "sort_match",
    "spectrum",
    "style_match",
    "text_match",
    "total_variation",
]
