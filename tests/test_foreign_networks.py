"""Every attribution method on networks of other kinds: a map of its own, or one line that says why not.

A zero map, or one that is another method's, comes with a warning.
"""

import functools
import itertools
import re
import warnings

import pytest
import torch

import featviz as fv
from featviz.attribution.baselines import baseline
from featviz.attribution.methods import METHODS
from tests.foreign_nets import FOREIGN

#: Few passes: what matters is whether there is a map, not how good it is.
CHEAP = {
    "integrated_gradients": {"tolerance": 0.05},
    "smooth_grad": {"steps": 4},
    "smooth_grad_squared": {"steps": 4},
    "var_grad": {"steps": 4},
    "noise_grad": {"steps": 3},
    "fusion_grad": {"steps": 3},
    "xrai": {"steps": 4},
    "occlusion": {"cells": 4},
    "feature_ablation": {"cells": 4},
    "kernel_shap": {"cells": 4, "steps": 64},
    "lime": {"cells": 4, "steps": 64},
    "prediction_difference": {"cells": 4, "steps": 2},
    "rise": {"steps": 64},
    "meaningful_perturbation": {"steps": 10, "cells": 6},
    "extremal_perturbation": {"steps": 10, "cells": 6},
    "fido": {"steps": 6, "cells": 6},
}
CAMS = ["cam", "grad_cam", "grad_cam_plus_plus", "layer_cam", "score_cam", "guided_grad_cam"]
NO_RELU = dict.fromkeys(
    ("guided_backprop", "deconvnet", "guided_grad_cam"),
    "acts on ReLUs, and none ran: this is the plain gradient",
)
NO_BIASES = {"full_grad": "has other nonlinear operations"}
NO_MAPS = dict.fromkeys(CAMS, "no layer .* has maps .* use another method")
NOT_AVERAGED = {"cam": "cam needs an objective .* use grad_cam"}


def no_rule(operation: str) -> str:
    return f"no rule for the operation {operation}: use integrated_gradients, or an objective"


def no_patterns(operation: str) -> dict[str, str]:
    return {"pattern_attribution": f"no patterns for the operation {operation}: use lrp"}


NOT_POSITIVE = {"deep_taylor": "has no positive part on this image: use lrp"}

REFUSED = {
    "vgg": NOT_AVERAGED | NOT_POSITIVE,
    "tokens": NOT_AVERAGED | no_patterns("gelu") | {"deep_taylor": no_rule("bmm")},
    "no_relu": NOT_AVERAGED | NOT_POSITIVE | no_patterns("mul"),
    "convnext": NOT_AVERAGED | no_patterns("layer_norm") | {"deep_taylor": no_rule("layer_norm")},
    "unet": no_patterns("conv_transpose2d") | {"deep_taylor": no_rule("group_norm")},
    "encoder": no_patterns("layer_norm") | {"deep_taylor": no_rule("layer_norm")},
    "mixer": NOT_AVERAGED | no_patterns("hardswish") | {"deep_taylor": no_rule("layer_norm")},
    "recurrent": NO_MAPS
    | no_patterns("lstm")
    | {"lrp": no_rule("lstm"), "deep_taylor": "select runs before .* use lrp with first=flat"},
    "linear": NO_MAPS,
    "probabilities": NOT_AVERAGED
    | NOT_POSITIVE
    | no_patterns("softmax")
    | {"lrp": no_rule("softmax")},
    "grey": NOT_AVERAGED,
    "signal": {"xrai": "give segments for other inputs"},
}

ONLY_SCALED = "changes only the length of the gradient .* this is the plain gradient"
WARNED = {
    "tokens": NO_RELU | NO_BIASES,
    "no_relu": NO_RELU | NO_BIASES,
    "convnext": NO_RELU | NO_BIASES,
    "unet": NO_RELU | NO_BIASES,
    "encoder": NO_BIASES,
    "mixer": NO_RELU | NO_BIASES,
    "recurrent": NO_RELU | NO_BIASES | {"noise_grad": ONLY_SCALED},
    "linear": NO_RELU
    | {"noise_grad": ONLY_SCALED, "fusion_grad": ONLY_SCALED}
    | {"var_grad": "does not vary over 4 noisy copies: the map is zero"},
    "probabilities": NO_BIASES,
}

#: What is equal by its formula: Grad-CAM and its like where one map makes the objective; complete
#: methods where DeepLIFT has no rule, or everything is linear.
EQUAL = {
    "unet": [
        ("grad_cam", "grad_cam_plus_plus"),
        ("grad_cam", "layer_cam"),
        ("grad_cam_plus_plus", "layer_cam"),
    ],
    "recurrent": [("integrated_gradients", "deep_lift")],
    "linear": [
        ("input_x_gradient", "integrated_gradients"),
        ("input_x_gradient", "deep_lift"),
        ("integrated_gradients", "deep_lift"),
        ("sensitivity", "smooth_grad_squared"),
        ("feature_ablation", "kernel_shap"),
    ],
}


@functools.cache
def model(network: str) -> fv.Model:
    return FOREIGN[network]()


@functools.cache
def question(network: str) -> tuple[torch.Tensor, fv.Objective]:
    """Return an image (1, C, *size) and the logit that rises most above its blurred baseline."""
    net = model(network)
    size = tuple(net.size)
    image = torch.rand(1, net.channels, *size, generator=torch.Generator().manual_seed(3))
    layer = "output[probabilities]" if network == "probabilities" else "output"
    goals = [fv.channel(layer, k) for k in range(3)]
    rises = [float(g(net, image)[0] - g(net, baseline("blur", image))[0]) for g in goals]
    best = max(range(3), key=lambda k: abs(rises[k]))
    return image, goals[best] if rises[best] > 0 else -1 * goals[best]


@functools.cache
def explained(network: str, method: str):
    """Return the attribution, or the error's message, and the messages of the warnings."""
    options = dict(CHEAP.get(method, {}))
    image, goal = question(network)
    if method == "pattern_attribution":
        generator = torch.Generator().manual_seed(9)
        options["data"] = torch.rand(8, *image.shape[1:], generator=generator)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", fv.FeatvizWarning)
        try:
            result = fv.attribute(model(network), image, goal, method=method, **options)
        except fv.FeatvizError as error:
            result = str(error)
    return result, [str(w.message) for w in found if issubclass(w.category, fv.FeatvizWarning)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", FOREIGN)
def test_a_map_or_one_line(network, method):
    result, warned = explained(network, method)
    refusal = REFUSED.get(network, {}).get(method)
    if refusal is not None:
        assert isinstance(result, str)
        assert re.search(refusal, result), result
        assert "\n" not in result
        return
    assert not isinstance(result, str), result
    size = tuple(model(network).size)
    assert tuple(result.heat.shape) == (1, *size)
    assert tuple(result.attributions.shape[2:]) == size
    assert result.attributions.isfinite().all()
    expected = WARNED.get(network, {}).get(method)
    if expected is None:
        assert not warned
        assert result.pixels.flatten().std() > 1e-3 * result.pixels.abs().max() > 0
    else:
        assert re.search(expected, " ".join(warned))


@pytest.mark.parametrize("network", FOREIGN)
def test_no_method_returns_the_map_of_another(network):
    maps = {}
    for method in METHODS:
        result, warned = explained(network, method)
        if not isinstance(result, str) and not warned:
            pixels = result.pixels[0].double()
            maps[method] = pixels / pixels.norm()
    for first, second in itertools.combinations(maps, 2):
        if (first, second) not in EQUAL.get(network, ()):
            likeness = float((maps[first] * maps[second]).sum())
            assert likeness < 1 - 1e-7, f"{second} is {first}"
