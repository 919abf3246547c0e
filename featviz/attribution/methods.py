"""Attribution methods by name: what each computes, its options, and how its values are read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

from featviz.attribution import (
    cam,
    fido,
    full_gradient,
    gradient_based,
    integrated,
    local_models,
    masks,
    noisy_gradients,
    perturbation_based,
    random_masks,
    window_samples,
    xrai,
)
from featviz.attribution.baseline_sets import are_several
from featviz.attribution.case import Case
from featviz.attribution.masks import FoundMasks, MaskProblem
from featviz.attribution.method_options import checked, given_options
from featviz.attribution.propagation import deep_lift, lrp, pattern_attribution
from featviz.attribution.settings import AttributionSettings
from featviz.errors import FeatvizError, did_you_mean
from featviz.networks import devices
from featviz.param.mask import cell_counts
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class AttributionMethod:
    """An attribution method.

    ``explain`` explains one image; ``optimize`` finds the masks of several with the ascent loop.
    ``signed`` indicates whether values have a sign, ``complete`` whether they should add up to the
    score minus the baseline's score, and ``gradients`` whether the method needs gradients;
    ``reduction`` is how channels become one value per pixel. ``baseline`` is the default baseline
    of methods that use one, ``several`` whether they average over several, ``options`` all options
    with their defaults. ``passes`` is roughly how many copies of an image are evaluated where no
    option says so.
    """

    explain: Callable[[Case], Tensor] | None = None
    optimize: Callable[[MaskProblem], FoundMasks] | None = None
    gradients: bool = True
    signed: bool = True
    complete: bool = False
    reduction: Literal["sum", "max"] = "sum"
    baseline: str | None = None
    several: bool = False
    passes: int = 1
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def evaluations(self, options: dict[str, Any], size: tuple[int, ...]) -> int:
        """Return roughly how many copies of an image are evaluated."""
        if self.explain is None:
            return 1
        if "steps" in options:
            return int(options["steps"] or integrated.MOST)
        cells = options.get("cells")
        return self.passes if cells is None else math.prod(cell_counts(size, int(cells)))


_REGIONS = {"cells": 14, "segments": None}
_COPIES = {"steps": 25, "sd": 0.15}

METHODS = {
    "saliency": AttributionMethod(gradient_based.saliency, signed=False, reduction="max"),
    "sensitivity": AttributionMethod(gradient_based.sensitivity, signed=False),
    "input_x_gradient": AttributionMethod(gradient_based.input_x_gradient),
    "integrated_gradients": AttributionMethod(
        integrated.integrated_gradients,
        complete=True,
        baseline="black",
        several=True,
        options={"steps": None, "tolerance": 0.01},
    ),
    "smooth_grad": AttributionMethod(noisy_gradients.smooth_grad, options=_COPIES),
    "smooth_grad_squared": AttributionMethod(
        noisy_gradients.smooth_grad_squared, signed=False, options=_COPIES
    ),
    "var_grad": AttributionMethod(noisy_gradients.var_grad, signed=False, options=_COPIES),
    "noise_grad": AttributionMethod(
        noisy_gradients.noise_grad, options={"steps": 25, "channel_noise": 0.2}
    ),
    "fusion_grad": AttributionMethod(
        noisy_gradients.fusion_grad, options={"steps": 25, "sd": 0.075, "channel_noise": 0.1}
    ),
    "full_grad": AttributionMethod(full_gradient.full_grad, signed=False),
    "xrai": AttributionMethod(xrai.xrai, options={"steps": 32, "segments": None}),
    "guided_backprop": AttributionMethod(gradient_based.guided_backprop),
    "deconvnet": AttributionMethod(gradient_based.deconvnet),
    "grad_cam": AttributionMethod(cam.grad_cam, signed=False, options={"layer": None}),
    "cam": AttributionMethod(cam.cam, options={"layer": None}),
    "grad_cam_plus_plus": AttributionMethod(
        cam.grad_cam_plus_plus, signed=False, options={"layer": None}
    ),
    "layer_cam": AttributionMethod(cam.layer_cam, signed=False, options={"layer": None}),
    "score_cam": AttributionMethod(
        cam.score_cam, signed=False, baseline="mean", passes=256, options={"layer": None}
    ),
    "guided_grad_cam": AttributionMethod(cam.guided_grad_cam, options={"layer": None}),
    "lrp": AttributionMethod(lrp.lrp, options={"rule": "epsilon_plus", "through": None}),
    "pattern_attribution": AttributionMethod(
        pattern_attribution.pattern_attribution, options={"data": None}
    ),
    "deep_taylor": AttributionMethod(lrp.deep_taylor, signed=False),
    "deep_lift": AttributionMethod(
        deep_lift.deep_lift,
        complete=True,
        baseline="black",
        several=True,
        options={"tolerance": 0.01},
    ),
    "occlusion": AttributionMethod(
        perturbation_based.occlusion, gradients=False, baseline="mean", options={"cells": 14}
    ),
    "feature_ablation": AttributionMethod(
        perturbation_based.feature_ablation, gradients=False, baseline="blur", options=_REGIONS
    ),
    "kernel_shap": AttributionMethod(
        perturbation_based.kernel_shap,
        gradients=False,
        baseline="blur",
        options={"cells": 7, "segments": None, "steps": 512},
    ),
    "lime": AttributionMethod(
        local_models.lime,
        gradients=False,
        baseline="blur",
        options={"cells": 7, "segments": None, "steps": 512},
    ),
    "prediction_difference": AttributionMethod(
        window_samples.prediction_difference, gradients=False, options={"cells": 14, "steps": 4}
    ),
    "rise": AttributionMethod(
        random_masks.rise,
        gradients=False,
        baseline="mean",
        options={"cells": 7, "steps": 1000},
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
        options={"kind": "delete", "steps": 320, "cells": 28, "area": masks.AREAS},
    ),
    "fido": AttributionMethod(
        optimize=fido.fido,
        signed=False,
        baseline="blur",
        options={"kind": "preserve", "steps": 100, "cells": 28, "infill": None},
    ),
}


def find_method(settings: AttributionSettings) -> tuple[AttributionMethod, dict[str, Any]]:
    """Return the method that the settings name, and all its options.

    Raises
    ------
    FeatvizError
        For an unknown method, an option that the method does not take, or an invalid value.
    """
    name = settings.method
    if name not in METHODS:
        hint = did_you_mean(str(name), METHODS) or f"; known: {', '.join(METHODS)}"
        raise FeatvizError(f"no method {name!r}{hint}")
    if settings.seconds is not None:
        raise FeatvizError(f"seconds are for the method auto, which chooses by them, not {name}")
    method = METHODS[name]
    options = {}
    for key, value in given_options(settings).items():
        if key not in method.options:
            takes = ", ".join(method.options) or "no options"
            raise FeatvizError(f"method {name} takes no {key}: it takes {takes}")
        options[key] = checked(key, value)
    if settings.baseline is not None and method.baseline is None:
        raise FeatvizError(f"method {name} takes no baseline")
    if are_several(settings.baseline) and not method.several:
        averaging = ", ".join(key for key, known in METHODS.items() if known.several)
        raise FeatvizError(f"method {name} takes one baseline: several are for {averaging}")
    devices.half(settings.precision)
    return method, {**method.options, **options}
