"""The method ``auto``: which method to use where none is named."""

from __future__ import annotations

import math
from collections.abc import Sequence

from featviz.attribution.settings import AttributionSettings
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives.scene import Target

#: The method of an option that only one of the recommended methods takes.
_BY_OPTION = {
    "layer": "grad_cam",
    "area": "extremal_perturbation",
    "kind": "extremal_perturbation",
    "channel_noise": "fusion_grad",
    "baseline": "kernel_shap",
    "steps": "kernel_shap",
    "cells": "kernel_shap",
    "segments": "kernel_shap",
}


def choose_method(
    settings: AttributionSettings, model: Model, goals: Sequence[Objective], size: tuple[int, ...]
) -> str:
    """Return the method that ``auto`` stands for.

    The two that beat random orders most often in ``docs/attribution.md``: ``grad_cam`` in one pass
    if every objective depends on maps (C, *positions) in the later half of the layers that run for
    it, ``kernel_shap`` otherwise, e.g. for transformers, whose only maps are those of the patch
    embedding. An option that only some methods take decides first.
    """
    for option, method in _BY_OPTION.items():
        if getattr(settings, option) is not None:
            return method
    return "grad_cam" if all(_has_late_maps(model, g, size) for g in goals) else "kernel_shap"


def _has_late_maps(model: Model, goal: Objective, size: tuple[int, ...]) -> bool:
    table = model.layers(size)
    needs = [table.find(name) for name in goal.needs(Target(model, size, 1))]
    last = max(map(table.index, needs), default=0)
    return any(
        info.axis == 1 and len(info.positions) == len(size) and math.prod(info.positions) > 1
        for info in table[last // 2 + 1 : last + 1]
    )
