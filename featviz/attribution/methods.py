"""The methods by name: what each computes, which options it takes, how its values are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from featviz.attribution import cam, gradients, masks, regions
from featviz.attribution.case import Case
from featviz.attribution.masks import Masks
from featviz.errors import FeatvizError, did_you_mean
from featviz.result import Result
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of attribution.

    ``each`` explains one picture; ``mask`` finds the masks of several with the loop. ``signed``
    says whether values have a sign, ``complete`` whether they are to add up to score - baseline
    score; ``over`` how the channels make one value of a pixel.
    ``baseline`` is the default where there is one, ``options`` all options with their defaults.
    """

    each: Callable[[Case], Tensor] | None = None
    mask: Callable[[Masks], tuple[Tensor, Result]] | None = None
    signed: bool = True
    complete: bool = False
    over: Literal["sum", "max"] = "sum"
    baseline: str | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


_GRID = {"cells": 14, "segments": None}

METHODS = {
    "saliency": Method(gradients.saliency, signed=False, over="max"),
    "input_x_gradient": Method(gradients.input_x_gradient),
    "integrated_gradients": Method(
        gradients.integrated_gradients, complete=True, baseline="black", options={"steps": 50}
    ),
    "smooth_grad": Method(gradients.smooth_grad, options={"steps": 25, "sd": 0.15}),
    "guided_backprop": Method(gradients.guided_backprop),
    "deconvnet": Method(gradients.deconvnet),
    "grad_cam": Method(cam.grad_cam, signed=False, options={"layer": None}),
    "guided_grad_cam": Method(cam.guided_grad_cam, options={"layer": None}),
    "occlusion": Method(regions.occlusion, baseline="mean", options={"cells": 14}),
    "feature_ablation": Method(regions.feature_ablation, baseline="blur", options=_GRID),
    "kernel_shap": Method(
        regions.kernel_shap,
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
#: Options that are positive whole numbers.
_COUNTS = ("steps", "cells")


def find(name: str, given: dict[str, Any]) -> tuple[Method, dict[str, Any]]:
    """Return a method and all its options, of which ``given`` has those that are not None.

    Raises
    ------
    FeatvizError
        For a name or an option that there is not, or a count that is none.
    """
    if name not in METHODS:
        hint = did_you_mean(str(name), METHODS) or f"; known: {', '.join(METHODS)}"
        raise FeatvizError(f"no method {name!r}{hint}")
    method = METHODS[name]
    said = {key: value for key, value in given.items() if value is not None}
    for key, value in said.items():
        if key not in method.options:
            takes = ", ".join(method.options) or "no options"
            raise FeatvizError(f"method {name} takes no {key}: it takes {takes}")
        if key in _COUNTS and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise FeatvizError(f"{key} must be a positive whole number, not {value!r}")
    return method, {**method.options, **said}
