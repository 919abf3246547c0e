"""Gradient-based attribution: one backward pass, or the mean of several."""

from __future__ import annotations

import warnings

import torch

from featviz.attribution.case import Case, captum
from featviz.errors import FeatvizWarning
from featviz.networks.gradients import Override, deconvnet_relu, guided_relu
from featviz.seeds import generator
from featviz.types import Tensor


def gradient(case: Case) -> Tensor:
    """Return the signed gradient ∂o/∂x."""
    return _gradients(case, case.leaf())


def saliency(case: Case) -> Tensor:
    """Return |∂o/∂x|. [Simonyan2014]_."""
    return gradient(case).abs()


def input_x_gradient(case: Case) -> Tensor:
    """Return x ∂o/∂x, x in [0, 1]. [Shrikumar2016]_."""
    return case.image * gradient(case)


def guided_backprop(case: Case) -> Tensor:
    """Return the gradient, passing only positive ones at active ReLUs. [Springenberg2015]_.

    Warns if the network has no ReLU to act on; the result is then the plain gradient.
    """
    with guided_relu() as override:
        result = gradient(case)
    _warn_without_relu(override, "guided backpropagation")
    return result


def deconvnet(case: Case) -> Tensor:
    """Return the gradient, passing only positive ones at all ReLUs. [Zeiler2014]_.

    Warns if the network has no ReLU to act on; the result is then the plain gradient.
    """
    with deconvnet_relu() as override:
        result = gradient(case)
    _warn_without_relu(override, "deconvnet")
    return result


def _warn_without_relu(override: Override, method: str) -> None:
    if not override.count:
        warnings.warn(
            f"{method} acts on ReLUs, and none ran: this is the plain gradient; use another method",
            FeatvizWarning,
            stacklevel=2,
        )


def smooth_grad(case: Case) -> Tensor:
    """Return the mean of ∂o/∂x over noisy copies of the image. [Smilkov2017]_.

    The standard deviation of the noise is ``sd`` times the range of the image's values. The noise
    is drawn from the sample's own seed, copy by copy.
    """
    rng = generator(case.seed, "smooth_grad")
    image, copies = case.image, case.options["steps"]
    low, high = image.aminmax()
    noise_sd = case.options["sd"] * (high - low)
    total = torch.zeros(image.shape, dtype=torch.float64)
    for first in range(0, copies, case.batch_size):
        count = min(case.batch_size, copies - first)
        noise = torch.stack([torch.randn(image.shape[1:], generator=rng) for _ in range(count)])
        noisy = (image + noise.to(image) * noise_sd).requires_grad_()
        total += _gradients(case, noisy).cpu().double().sum(0, keepdim=True)
    return (total / copies).to(image.dtype)


def integrated_gradients(case: Case) -> Tensor:
    """Return (x - b) times the mean gradient on the straight path from b to x. [Sundararajan2017]_.

    The mean is a Gauss-Legendre quadrature with ``steps`` points.
    """
    attributions: Tensor = (
        captum()
        .IntegratedGradients(case.evaluator)
        .attribute(
            case.leaf(),
            baselines=case.base,
            n_steps=case.options["steps"],
            method="gausslegendre",
            internal_batch_size=case.batch_size,
        )
    )
    return attributions.to(case.image.dtype)


def _gradients(case: Case, images: Tensor) -> Tensor:
    """Return each image's own gradient (B, C, *size)."""
    with torch.enable_grad():
        return torch.autograd.grad(case.evaluator(images).sum(), images)[0]
