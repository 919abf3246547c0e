"""The methods by name: what each computes, which options it takes, how its values are read."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any, Literal

import torch

from featviz.attribution import cam, gradient_based, masks, regions
from featviz.attribution.case import Case
from featviz.attribution.masks import KINDS, Found, Masks
from featviz.errors import FeatvizError, did_you_mean
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of attribution.

    ``each`` explains one picture; ``mask`` finds the masks of several with the loop. ``signed``
    says whether values have a sign, ``complete`` whether they are to add up to score - baseline
    score, ``gradients`` whether it takes any; ``over`` how the channels make one value of a pixel.
    ``baseline`` is the default where there is one, ``options`` all options with their defaults.
    """

    each: Callable[[Case], Tensor] | None = None
    mask: Callable[[Masks], Found] | None = None
    gradients: bool = True
    signed: bool = True
    complete: bool = False
    over: Literal["sum", "max"] = "sum"
    baseline: str | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


_GRID = {"cells": 14, "segments": None}

METHODS = {
    "saliency": Method(gradient_based.saliency, signed=False, over="max"),
    "input_x_gradient": Method(gradient_based.input_x_gradient),
    "integrated_gradients": Method(
        gradient_based.integrated_gradients, complete=True, baseline="black", options={"steps": 50}
    ),
    "smooth_grad": Method(gradient_based.smooth_grad, options={"steps": 25, "sd": 0.15}),
    "guided_backprop": Method(gradient_based.guided_backprop),
    "deconvnet": Method(gradient_based.deconvnet),
    "grad_cam": Method(cam.grad_cam, signed=False, options={"layer": None}),
    "guided_grad_cam": Method(cam.guided_grad_cam, options={"layer": None}),
    "occlusion": Method(regions.occlusion, gradients=False, baseline="mean", options={"cells": 14}),
    "feature_ablation": Method(
        regions.feature_ablation, gradients=False, baseline="blur", options=_GRID
    ),
    "kernel_shap": Method(
        regions.kernel_shap,
        gradients=False,
        baseline="blur",
        options={"cells": 7, "segments": None, "steps": 512},
    ),
    "meaningful_perturbation": Method(
        mask=masks.meaningful_perturbation,
        signed=False,
        baseline="blur",
        options={"kind": "delete", "steps": 150, "cells": 28},
    ),
    "extremal_perturbation": Method(
        mask=masks.extremal_perturbation,
        signed=False,
        baseline="blur",
        options={"kind": "preserve", "steps": 150, "cells": 28, "area": 0.1},
    ),
}


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _real(value: Any) -> bool:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _whole_numbers(value: Any) -> bool:
    try:
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return not found.is_floating_point() and not found.is_complex()


#: What each option must be, and what says so.
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "steps": (_count, "a positive whole number"),
    "cells": (_count, "a positive whole number"),
    "sd": (lambda value: _real(value) and value >= 0, "a number of at least 0"),
    "area": (lambda value: _real(value) and 0 < value < 1, "between 0 and 1"),
    "layer": (lambda value: isinstance(value, str), "the name of a layer"),
    "segments": (_whole_numbers, "whole numbers, as a tensor"),
    "kind": (lambda value: value in KINDS, " or ".join(KINDS)),
}


def find(name: str, given: dict[str, Any]) -> tuple[Method, dict[str, Any]]:
    """Return a method and all its options, of which ``given`` has those that are not None.

    Raises
    ------
    FeatvizError
        For a name or an option that there is not, or a value that an option cannot have.
    """
    if name not in METHODS:
        hint = did_you_mean(str(name), METHODS) or f"; known: {', '.join(METHODS)}"
        raise FeatvizError(f"no method {name!r}{hint}")
    method = METHODS[name]
    said = {key: value for key, value in given.items() if value is not None}
    for key, value in list(said.items()):
        if key not in method.options:
            takes = ", ".join(method.options) or "no options"
            raise FeatvizError(f"method {name} takes no {key}: it takes {takes}")
        fits, what = _CHECKS[key]
        if not fits(value):
            shown = " ".join(repr(value).split())[:60]
            raise FeatvizError(f"{key} must be {what}, not {shown}")
        if key in ("sd", "area"):
            said[key] = float(value)  # the record is JSON, which knows no numbers of numpy
    return method, {**method.options, **said}
