"""The verbs. Each chooses parts for the one loop in :mod:`featviz.engine`."""

from featviz.recipes.attack import attack
from featviz.recipes.attribute import attribute
from featviz.recipes.calibrate import calibrate
from featviz.recipes.check import check
from featviz.recipes.dream import dream
from featviz.recipes.dream_video import dream_video
from featviz.recipes.examples import examples
from featviz.recipes.invert import invert
from featviz.recipes.patch import patch_attack
from featviz.recipes.render import render

__all__ = [
    "attack",
    "attribute",
    "calibrate",
    "check",
    "dream",
    "dream_video",
    "examples",
    "invert",
    "patch_attack",
    "render",
]
