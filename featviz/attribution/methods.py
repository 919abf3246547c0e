"""The methods by name: what each computes, which options it takes, how its values are read."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any, Literal

import torch

from featviz.attribution import cam, gradient_based, masks, perturbation_based
from featviz.attribution.case import Case
from featviz.attribution.masks import KINDS, FoundMasks, MaskProblem
from featviz.attribution.settings import AttributionSettings
from featviz.errors import FeatvizError, did_you_mean
from featviz.networks import devices
from featviz.param.mask import cell_counts
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class AttributionMethod:
    """A method of attribution.

    ``explain`` explains one image; ``optimize`` finds the masks of several with the loop.
    ``signed`` says whether values have a sign, ``complete`` whether they are to add up to the score
    less the baseline's, ``gradients`` whether it takes any; ``reduction`` how the channels become
    one value of a pixel. ``baseline`` is the default where there is one, ``options`` all options
    with their defaults.
    """

    explain: Callable[[Case], Tensor] | None = None
    optimize: Callable[[MaskProblem], FoundMasks] | None = None
    gradients: bool = True
    signed: bool = True
    complete: bool = False
    reduction: Literal["sum", "max"] = "sum"
    baseline: str | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def evaluations(self, options: dict[str, Any], size: tuple[int, ...]) -> int:
        """Return about how many copies of an image are evaluated."""
        if self.explain is None:
            return 1
        if "steps" in options:
            return int(options["steps"])
        cells = options.get("cells")
        return 1 if cells is None else math.prod(cell_counts(size, int(cells)))


_GRID = {"cells": 14, "segments": None}

METHODS = {
    "saliency": AttributionMethod(gradient_based.saliency, signed=False, reduction="max"),
    "input_x_gradient": AttributionMethod(gradient_based.input_x_gradient),
    "integrated_gradients": AttributionMethod(
        gradient_based.integrated_gradients,
        complete=True,
        baseline="black",
        options={"steps": 50},
    ),
    "smooth_grad": AttributionMethod(gradient_based.smooth_grad, options={"steps": 25, "sd": 0.15}),
    "guided_backprop": AttributionMethod(gradient_based.guided_backprop),
    "deconvnet": AttributionMethod(gradient_based.deconvnet),
    "grad_cam": AttributionMethod(cam.grad_cam, signed=False, options={"layer": None}),
    "guided_grad_cam": AttributionMethod(cam.guided_grad_cam, options={"layer": None}),
    "occlusion": AttributionMethod(
        perturbation_based.occlusion, gradients=False, baseline="mean", options={"cells": 14}
    ),
    "feature_ablation": AttributionMethod(
        perturbation_based.feature_ablation, gradients=False, baseline="blur", options=_GRID
    ),
    "kernel_shap": AttributionMethod(
        perturbation_based.kernel_shap,
        gradients=False,
        baseline="blur",
        options={"cells": 7, "segments": None, "steps": 512},
    ),
    "meaningful_perturbation": AttributionMethod(
        optimize=masks.meaningful_perturbation,
        signed=False,
        baseline="blur",
        options={"kind": "delete", "steps": 150, "cells": 28},
    ),
    "extremal_perturbation": AttributionMethod(
        optimize=masks.extremal_perturbation,
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
        labels = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return not labels.is_floating_point() and not labels.is_complex()


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


def find_method(settings: AttributionSettings) -> tuple[AttributionMethod, dict[str, Any]]:
    """Return a method and all its options.

    Raises
    ------
    FeatvizError
        For a name that there is not, an option that the method does not take, or a value that an
        option cannot have.
    """
    name = settings.method
    if name not in METHODS:
        hint = did_you_mean(str(name), METHODS) or f"; known: {', '.join(METHODS)}"
        raise FeatvizError(f"no method {name!r}{hint}")
    method = METHODS[name]
    given = {key: getattr(settings, key) for key in _CHECKS}
    given = {key: value for key, value in given.items() if value is not None}
    for key, value in list(given.items()):
        if key not in method.options:
            takes = ", ".join(method.options) or "no options"
            raise FeatvizError(f"method {name} takes no {key}: it takes {takes}")
        fits, what = _CHECKS[key]
        if not fits(value):
            shown = " ".join(repr(value).split())[:60]
            raise FeatvizError(f"{key} must be {what}, not {shown}")
        if key in ("sd", "area"):
            given[key] = float(value)  # the record is JSON, which knows no numbers of numpy
    if settings.baseline is not None and method.baseline is None:
        raise FeatvizError(f"method {name} takes no baseline")
    devices.half(settings.precision)
    return method, {**method.options, **given}
