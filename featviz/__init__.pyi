from . import objectives, param, recipes, transforms
from ._version import __version__
from .atlases import Atlas, atlas
from .attacks.adversarial_patch import patch_attack
from .attacks.api import attack
from .attacks.result import AttackResult
from .attacks.settings import AttackSettings, PatchSettings
from .attribution.api import attribute
from .attribution.result import Attribution
from .attribution.settings import AttributionSettings
from .calibration.api import calibrate
from .checks.api import check
from .checks.result import Check, Checks
from .dataset_examples.api import examples
from .dataset_examples.result import Examples
from .dreaming.api import dream
from .dreaming.frames import dream_video
from .dreaming.settings import DreamSettings
from .errors import FeatvizError, FeatvizWarning, OptimizationError
from .io import video
from .networks import gradients, zoo
from .networks.dictionaries.api import dictionary
from .networks.dictionaries.dictionary import Dictionary
from .networks.model import Model
from .networks.text_model import TextModel
from .networks.zoo import load, models
from .objectives import (
    Objective,
    activation_difference,
    activation_prior,
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
    multiscale_variation,
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
from .objectives.activation_stats import ActivationStats
from .optim import callbacks, optimizers
from .optim.checkpoint import Checkpoint
from .optim.loop import optimize
from .optim.optimizers import Cosine
from .optim.result import Result
from .optim.settings import Settings
from .param.stats import Stats
from .rendering.api import render
from .rendering.inversion import invert

__all__ = [
    "ActivationStats",
    "Atlas",
    "AttackResult",
    "AttackSettings",
    "Attribution",
    "AttributionSettings",
    "Check",
    "Checkpoint",
    "Checks",
    "Cosine",
    "Dictionary",
    "DreamSettings",
    "Examples",
    "FeatvizError",
    "FeatvizWarning",
    "Model",
    "Objective",
    "OptimizationError",
    "PatchSettings",
    "Result",
    "Settings",
    "Stats",
    "TextModel",
    "__version__",
    "activation_difference",
    "activation_prior",
    "alignment",
    "angled_direction",
    "area",
    "atlas",
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
    "dictionary",
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
    "multiscale_variation",
    "neuron",
    "objective",
    "objectives",
    "optimize",
    "optimizers",
    "param",
    "patch_attack",
    "per_sample",
    "probability",
    "ramp",
    "recipes",
    "render",
    "sort_match",
    "spectrum",
    "style_match",
    "text_match",
    "total_variation",
    "transforms",
    "video",
    "zoo",
]
