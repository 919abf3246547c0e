"""The verbs. Each chooses parts for the one loop in :mod:`featviz.engine`."""

from featviz.recipes.calibrate import calibrate
from featviz.recipes.dream import dream
from featviz.recipes.dream_video import dream_video
from featviz.recipes.invert import invert
from featviz.recipes.render import render

__all__ = ["calibrate", "dream", "dream_video", "invert", "render"]
