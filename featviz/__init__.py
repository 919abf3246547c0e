"""Feature visualization for PyTorch: see what the units of a trained network respond to.

>>> import featviz as fv
>>> model = fv.load("efficientnet_lite0")
>>> result = fv.render(model, fv.channel("_blocks.10", 5), steps=256)  # doctest: +SKIP
>>> result.save("channel.png")  # doctest: +SKIP

An *objective* says what about the activations should be large, a *parameterization* draws the
picture, *transforms* disturb it, and the loop in :mod:`featviz.engine` climbs.
"""

from typing import TYPE_CHECKING, Any

from featviz import callbacks, gradients, objectives, param, transforms, updates, video
from featviz._version import __version__
from featviz.attack_result import AttackResult
from featviz.attribution_result import Attribution
from featviz.check_result import Check, Checks
from featviz.checkpoint import Checkpoint
from featviz.engine import optimize
from featviz.errors import FeatvizError, FeatvizWarning, OptimizationError
from featviz.examples_result import Examples
from featviz.model import Model
from featviz.objectives import (
    Objective,
    activation_difference,
    alignment,
    angled_direction,
    area,
    batchnorm_match,
    blur,
    boundary_complexity,
    caricature,
    channel,
    class_logit,
    direction,
    diversity,
    dlr,
    feature_match,
    function,
    guide_match,
    head,
    input_difference,
    interpolate,
    l1,
    l2,
    layer,
    log_probability,
    margin,
    mean,
    neuron,
    objective,
    per_sample,
    probability,
    ramp,
    sort_match,
    spectrum,
    style_match,
    text_match,
    total_variation,
)
from featviz.param.stats import Stats
from featviz.recipes import (
    attack,
    attribute,
    calibrate,
    check,
    dream,
    dream_video,
    examples,
    invert,
    patch_attack,
    render,
)
from featviz.result import Result
from featviz.updates import Cosine
from featviz.zoo import load, models

__all__ = [
    "AttackResult",
    "Attribution",
    "Check",
    "Checkpoint",
    "Checks",
    "Cosine",
    "Examples",
    "FeatvizError",
    "FeatvizWarning",
    "Model",
    "Objective",
    "OptimizationError",
    "Result",
    "Stats",
    "__version__",
    "activation_difference",
    "alignment",
    "angled_direction",
    "area",
    "attack",
    "attribute",
    "batchnorm_match",
    "blur",
    "boundary_complexity",
    "calibrate",
    "callbacks",
    "caricature",
    "channel",
    "check",
    "class_logit",
    "direction",
    "diversity",
    "dlr",
    "dream",
    "dream_video",
    "examples",
    "feature_match",
    "function",
    "gradients",
    "guide_match",
    "head",
    "input_difference",
    "interpolate",
    "invert",
    "l1",
    "l2",
    "layer",
    "load",
    "log_probability",
    "margin",
    "mean",
    "models",
    "neuron",
    "objective",
    "objectives",
    "optimize",
    "param",
    "patch_attack",
    "per_sample",
    "probability",
    "ramp",
    "render",
    "sort_match",
    "spectrum",
    "style_match",
    "text_match",
    "total_variation",
    "transforms",
    "updates",
    "video",
]

if TYPE_CHECKING:
    from featviz.atlases import Atlas as Atlas
    from featviz.atlases import atlas as atlas


def __getattr__(name: str) -> Any:
    """Import what needs pyarrow only when it is asked for."""
    if name in ("Atlas", "atlas"):
        from featviz import atlases

        return getattr(atlases, name)
    raise AttributeError(f"module 'featviz' has no attribute {name!r}")
