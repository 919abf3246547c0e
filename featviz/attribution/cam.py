"""Attribution by the maps of a layer."""

from __future__ import annotations

import math

from featviz.attribution.case import Case, captum
from featviz.attribution.gradients import guided_backprop
from featviz.errors import FeatvizError
from featviz.forward import Forward
from featviz.layers import LayerInfo, module_names
from featviz.resample import resize
from featviz.types import Tensor


def grad_cam(case: Case) -> Tensor:
    """Return max(0, Σ_k w_k A_k), w_k the mean of ∂o/∂A_k over the map, resampled linearly.

    A_k are the maps of ``layer``; without one, of the last layer with positions that the objective
    depends on. [Selvaraju2017]_
    """
    info = find_layer(case.forward, case.options["layer"])
    module = module_names(case.forward.model.net)[info.name]
    explain = captum().LayerGradCam(case.forward, module)
    found: Tensor = explain.attribute(case.leaf(), relu_attributions=True)
    return resize(found.detach().float(), tuple(case.image.shape[2:]))


def guided_grad_cam(case: Case) -> Tensor:
    """Return guided backpropagation times Grad-CAM. [Selvaraju2017]_."""
    return guided_backprop(case) * grad_cam(case)


def find_layer(forward: Forward, name: str | None) -> LayerInfo:
    """Return the layer whose maps are taken.

    Raises
    ------
    FeatvizError
        If the layer has no maps (C, *spatial), does not run before what the objective reads,
        or none is named and there is none.
    """
    table = forward.table
    order = [info.name for info in table]
    last = max((order.index(n) for n in forward.needs), default=0)
    plain = module_names(forward.model.net)

    def fits(info: LayerInfo) -> bool:
        maps = info.axis == 1 and len(info.positions) == len(forward.size)
        return maps and math.prod(info.positions) > 1 and info.name in plain

    if name is not None:
        info = table.find(name)
        if not fits(info):
            raise FeatvizError(
                f"Grad-CAM needs maps (C, *positions) of a module: layer {name!r} has shape "
                f"{info.shape}"
            )
        if order.index(name) > last:
            raise FeatvizError(
                f"layer {name!r} comes after what {forward.objective} reads: name an earlier one"
            )
        return info
    fitting = [info for info in table[: last + 1] if fits(info)]
    if not fitting:
        raise FeatvizError(
            f"no layer that {forward.objective} depends on has maps (C, *positions): Grad-CAM "
            "needs one, other methods do not"
        )
    return fitting[-1]
