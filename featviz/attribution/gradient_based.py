"""Gradient-based attribution: one backward pass, or the mean of several."""

from __future__ import annotations

import torch

from featviz.attribution.case import Case
from featviz.networks.gradients import Override, deconvnet_relu, guided_relu
from featviz.types import Tensor


def gradient(case: Case) -> Tensor:
    """Return the signed gradient ∂o/∂x."""
    return gradients(case, case.leaf())


def saliency(case: Case) -> Tensor:
    """Return |∂o/∂x|. [Simonyan2014]_."""
    return gradient(case).abs()


def sensitivity(case: Case) -> Tensor:
    """Return (∂o/∂x)²: how much o changes, to first order, with the pixel. [Baehrens2010]_."""
    return gradient(case).square()


def input_x_gradient(case: Case) -> Tensor:
    """Return x ∂o/∂x, x in [0, 1]. [Shrikumar2016]_."""
    return case.image * gradient(case)


def guided_backprop(case: Case) -> Tensor:
    """Return the gradient, passing only positive ones at active ReLUs. [Springenberg2015]_.

    The map hardly depends on the objective [Nie2018]_: on Lite0 the maps of the most and the least
    likely class of a photograph are 0.08 apart, where unrelated maps are 1.41 apart
    (``benchmarks/sanity.py classes``). It shows edges, and not what decides for a class.

    Warns if the network has no ReLU to act on; the result is then the plain gradient.
    """
    with guided_relu() as override:
        result = gradient(case)
    _warn_without_relu(case, override, "guided backpropagation")
    return result


def deconvnet(case: Case) -> Tensor:
    """Return the gradient, passing only positive ones at all ReLUs. [Zeiler2014]_.

    The map does not depend on the image but for max-pooling, which Lite0 has not, and hardly on the
    objective [Nie2018]_: 0.03 between the most and the least likely class, as in
    :func:`guided_backprop`.

    Warns if the network has no ReLU to act on; the result is then the plain gradient.
    """
    with deconvnet_relu() as override:
        result = gradient(case)
    _warn_without_relu(case, override, "deconvnet")
    return result


def _warn_without_relu(case: Case, override: Override, method: str) -> None:
    if not override.count:
        case.warn(
            f"{method} acts on ReLUs, and none ran: this is the plain gradient; use another method"
        )


def gradients(case: Case, images: Tensor) -> Tensor:
    """Return each image's own gradient (B, C, *size)."""
    with torch.enable_grad():
        return torch.autograd.grad(case.evaluator(images).sum(), images)[0]
