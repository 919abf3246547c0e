"""Objectives: what about a network's activations should be large.

The functions here make the units of the language; numbers and operators combine them; the text
of an objective (``str(o)``) parses back with :func:`objective`.
"""

from featviz.objectives.base import Objective
from featviz.objectives.group import mean, per_sample
from featviz.objectives.text import objective
from featviz.objectives.units import channel, class_logit, direction, layer, neuron

__all__ = [
    "Objective",
    "channel",
    "class_logit",
    "direction",
    "layer",
    "mean",
    "neuron",
    "objective",
    "per_sample",
]
