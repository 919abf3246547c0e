"""Feature visualization for PyTorch: see what the units of a trained network respond to.

>>> import featviz as fv
>>> model = fv.load("efficientnet_lite0")
>>> result = fv.render(model, fv.channel("_blocks.10", 5), steps=256)  # doctest: +SKIP
>>> result.save("channel.png")  # doctest: +SKIP

An *objective* says what about the activations should be large, a *parameterization* draws the
picture, *transforms* disturb it, and the loop in :mod:`featviz.engine` climbs.
"""

from featviz import callbacks, objectives, param, transforms
from featviz._version import __version__
from featviz.engine import Cosine, optimize
from featviz.errors import FeatvizError, FeatvizWarning, OptimizationError
from featviz.model import Model
from featviz.objectives import (
    Objective,
    channel,
    class_logit,
    direction,
    layer,
    mean,
    neuron,
    objective,
    per_sample,
)
from featviz.recipes import render
from featviz.result import Result
from featviz.zoo import load, models

__all__ = [
    "Cosine",
    "FeatvizError",
    "FeatvizWarning",
    "Model",
    "Objective",
    "OptimizationError",
    "Result",
    "__version__",
    "callbacks",
    "channel",
    "class_logit",
    "direction",
    "layer",
    "load",
    "mean",
    "models",
    "neuron",
    "objective",
    "objectives",
    "optimize",
    "param",
    "per_sample",
    "render",
    "transforms",
]
