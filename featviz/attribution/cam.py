"""Class activation maps: attribution by the feature maps of a layer.

A_k are the maps of a layer at the positions p, n their number, g_k = ∂o/∂A_k. All are weighted sums
of the maps, resized linearly to the image; the methods differ in the weights.
"""

from __future__ import annotations

import torch

from featviz.attribution.cam_layers import LayerMaps, layer_maps
from featviz.attribution.case import Case
from featviz.attribution.gradient_based import guided_backprop
from featviz.errors import FeatvizError
from featviz.resample import resize
from featviz.types import Tensor

#: How far the gradient of an average may differ between positions, relative to the largest.
_EVEN = 1e-3


def cam(case: Case) -> Tensor:
    """Return Σ_k w_k A_k for an objective Σ_k w_k mean(A_k) + c. [Zhou2016]_.

    The mean over the positions is the objective minus its constant, evidence against it included.
    The weights are read from the gradient, so that no layer of class weights has to be named.

    Raises
    ------
    FeatvizError
        If the objective is not a weighted sum of the averages of the layer's maps.
    """
    found = layer_maps(case)
    axes = tuple(range(2, found.slopes.ndim))
    mean = found.slopes.mean(axes, keepdim=True)
    uneven = (found.slopes - mean).abs().amax() > _EVEN * found.slopes.abs().amax()
    if uneven or not _is_linear(case, found):
        raise FeatvizError(
            f"cam needs an objective that is a weighted sum of averages of a layer's maps, and "
            f"{case.evaluator.objective} is none of layer {found.info.name!r}: use grad_cam"
        )
    count = found.maps[0, 0].numel()
    return _resized(case, (mean * count * found.maps).sum(1, keepdim=True))


def _is_linear(case: Case, found: LayerMaps) -> bool:
    """Return whether the gradient by the maps is the same for another image."""
    other = Case(case.evaluator, 1 - case.image, None, case.seed, {"layer": found.info.name})
    try:
        slopes = layer_maps(other).slopes
    except FeatvizError:  # no gradient there
        return False
    return bool((slopes - found.slopes).abs().amax() <= _EVEN * found.slopes.abs().amax())


def grad_cam(case: Case) -> Tensor:
    """Return max(0, Σ_k w_k A_k), w_k the mean of g_k over the positions. [Selvaraju2017]_."""
    found = layer_maps(case)
    weights = found.slopes.mean(tuple(range(2, found.slopes.ndim)), keepdim=True)
    return _positive(case, weights * found.maps)


def grad_cam_plus_plus(case: Case) -> Tensor:
    """Return max(0, Σ_k w_k A_k), w_k = Σ_p α_k max(0, g_k). [Chattopadhay2018]_.

    α_k = g_k² / (2 g_k² + g_k³ Σ_p A_k), 0 where g_k is. The paper derives it for exp(o); the
    factor exp(o) that all weights then share is left out.
    """
    found = layer_maps(case)
    slopes, maps = found.slopes.double(), found.maps.double()
    axes = tuple(range(2, maps.ndim))
    # Divided by g², so that small gradients do not vanish in their cubes.
    denominator = 2 + slopes * maps.sum(axes, keepdim=True)
    alpha = torch.where((slopes != 0) & (denominator != 0), 1 / denominator, 0.0)
    weights = (alpha * slopes.clamp_min(0)).sum(axes, keepdim=True)
    return _positive(case, (weights * maps).float())


def layer_cam(case: Case) -> Tensor:
    """Return max(0, Σ_k max(0, g_k) A_k), a weight for each position. [Jiang2021]_."""
    found = layer_maps(case)
    return _positive(case, found.slopes.clamp_min(0) * found.maps)


def score_cam(case: Case) -> Tensor:
    """Return max(0, Σ_k w_k A_k), w the softmax of the value behind each map. [Wang2020]_.

    Behind a map, resized and scaled to [0, 1], the image is shown where it is 1 and the baseline
    where it is 0. Maps that are the same everywhere hide nothing and have no weight. The softmax
    depends on the unit of the objective: with a logit, a few maps have all the weight.

    Raises
    ------
    FeatvizError
        As :func:`layer_maps`, or if no map varies.
    """
    found = layer_maps(case)
    masks = resize(found.maps[0, :, None], tuple(case.image.shape[2:]))
    flat = masks.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    varied = (high > low).nonzero().flatten()
    if not len(varied):
        raise FeatvizError(
            f"score_cam: every map of layer {found.info.name!r} is the same at all positions: "
            "name another layer"
        )
    values = []
    shape = (-1, *(1 for _ in masks.shape[1:]))
    for chosen in varied.split(case.batch_size):
        spread = (high[chosen] - low[chosen]).view(shape)
        opacity = ((masks[chosen] - low[chosen].view(shape)) / spread).to(case.image)
        values.append(case.evaluator.scores(case.base.lerp(case.image, opacity)))
    weights = torch.cat(values).double().softmax(0).to(found.maps)
    return _positive(case, weights.view(1, *shape[:-1]) * found.maps[:, varied])


def guided_grad_cam(case: Case) -> Tensor:
    """Return guided backpropagation times Grad-CAM. [Selvaraju2017]_."""
    return guided_backprop(case) * grad_cam(case)


def _positive(case: Case, terms: Tensor) -> Tensor:
    """Return the positive part of Σ_k of terms (1, K, *grid) at the size of the image.

    Warns where nothing is positive: the map is then zero, which says nothing of the image.
    """
    total = terms.sum(1, keepdim=True).clamp_min(0)
    if not total.any():
        case.warn(
            f"layer {case.notes['layer']!r} has no evidence for {case.evaluator.objective} at any "
            "position: its map is zero; name another layer, or use layer_cam or cam"
        )
    return _resized(case, total)


def _resized(case: Case, maps: Tensor) -> Tensor:
    return resize(maps, tuple(case.image.shape[2:]))
