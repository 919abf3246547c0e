"""Gradients under noise: on the image, in the network, or both; their mean, square and variance.

The noise comes from the sample's own seed, copy by copy, so that it does not depend on the batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import torch

from featviz.attribution.case import Case
from featviz.attribution.gradient_based import gradients
from featviz.networks.noise import NetworkNoise
from featviz.seeds import generator
from featviz.types import Tensor

#: Relative size of differences that are rounding.
_ROUNDING = 1e-9


@dataclasses.dataclass
class _Moments:
    """Sums of gradients (1, C, *size) and of their squares, in double precision."""

    count: int
    total: Tensor
    squares: Tensor

    @classmethod
    def none(cls, image: Tensor) -> _Moments:
        return cls(0, *(torch.zeros(image.shape, dtype=torch.float64) for _ in range(2)))

    def add(self, values: Tensor) -> None:
        values = values.cpu().double()
        self.count += len(values)
        self.total += values.sum(0, keepdim=True)
        self.squares += values.square().sum(0, keepdim=True)

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def mean_square(self) -> Tensor:
        return self.squares / self.count


def smooth_grad(case: Case) -> Tensor:
    """Return the mean of ∂o/∂x over noisy copies of the image. [Smilkov2017]_.

    The standard deviation of the noise is ``sd`` times the range of the image's values.
    """
    return _like(case, _over_copies(case).mean)


def smooth_grad_squared(case: Case) -> Tensor:
    """Return the mean of (∂o/∂x)² over noisy copies of the image. [Hooker2019]_.

    The square keeps what gradients of both signs cancel in SmoothGrad.
    """
    return _like(case, _over_copies(case).mean_square)


def var_grad(case: Case) -> Tensor:
    """Return the variance of ∂o/∂x over noisy copies of the image. [Adebayo2018]_.

    It is SmoothGrad² minus the square of SmoothGrad: zero wherever the gradient is constant, for a
    linear network everywhere, which a warning says.
    """
    moments = _over_copies(case)
    variance = moments.mean_square - moments.mean.square()
    variance = variance.where(variance > _ROUNDING * moments.mean_square, 0)
    if not variance.any():
        case.warn(
            f"the gradient of {case.evaluator.objective} does not vary over {moments.count} noisy "
            "copies: the map is zero; use smooth_grad, more steps or a larger sd"
        )
    return _like(case, variance)


def noise_grad(case: Case) -> Tensor:
    """Return the mean of ∂o/∂x over copies of the network with noisy weights. [Bykov2022]_.

    The paper multiplies every weight by its own factor 1 + sd n; here the output channels of the
    normalization layers (without any, of the convolutions and linear layers) are multiplied, which
    scales all weights of a channel, and its bias, by one factor. ``channel_noise`` is sd.

    Warns if the noise changes nothing but the length of the gradient, as where the only such layer
    is the last one; the result then is the plain gradient.

    Raises
    ------
    FeatvizError
        If the network has no such layers.
    """
    return _like(case, _over_networks(case, 0.0).mean)


def fusion_grad(case: Case) -> Tensor:
    """Return the mean of ∂o/∂x over noisy networks, each with its own noisy image. [Bykov2022]_.

    The paper averages over a grid of N networks and M images; here every copy has a new network and
    a new image, which estimates the same mean with fewer passes. The noises are those of
    :func:`noise_grad` (``channel_noise``) and :func:`smooth_grad` (``sd``), by default half.
    """
    return _like(case, _over_networks(case, case.options["sd"]).mean)


def _like(case: Case, values: Tensor) -> Tensor:
    return values.to(case.image.dtype)


def _over_copies(case: Case) -> _Moments:
    """Return the moments of the gradient over ``steps`` noisy copies."""
    rng = generator(case.seed, "smooth_grad")
    noise_sd = _scaled(case.image, case.options["sd"])
    moments = _Moments.none(case.image)
    for first in range(0, case.options["steps"], case.batch_size):
        count = min(case.batch_size, case.options["steps"] - first)
        moments.add(gradients(case, _noisy(case.image, noise_sd, count, rng)))
    return moments


def _over_networks(case: Case, sd: float) -> _Moments:
    """Return the moments of the gradient over ``steps`` noisy networks and noisy images."""
    rng = generator(case.seed, "noise_grad")
    noise_sd = _scaled(case.image, sd)
    evaluator = case.evaluator
    noise = NetworkNoise(evaluator.model, evaluator.size, channels=True, branches=False)
    moments = _Moments.none(case.image)
    directions: list[Tensor] = []
    with _in_network(case, noise):
        for _ in range(case.options["steps"]):
            start = float(torch.rand((), generator=rng))
            noise.draw_((case.options["channel_noise"], start), (0.0, 0.0))
            found = gradients(case, _noisy(case.image, noise_sd, 1, rng))
            moments.add(found)
            if len(directions) < 2:
                directions.append(found.double().flatten())
    if case.options["channel_noise"] and _parallel(*directions):
        case.warn(
            "noise in the network changes only the length of the gradient of "
            f"{case.evaluator.objective}: this is the plain gradient; use smooth_grad"
        )
    return moments


def _parallel(first: Tensor, *others: Tensor) -> bool:
    """Return whether there are other gradients (N,), and all are multiples of the first."""
    return bool(others) and all(
        (first @ other).abs() >= (1 - _ROUNDING) * first.norm() * other.norm() for other in others
    )


@contextlib.contextmanager
def _in_network(case: Case, noise: NetworkNoise) -> Iterator[None]:
    """Apply noise in every pass of the evaluator, which then runs the network and not a trace."""
    forward = case.evaluator.forward
    previous = forward.noise, forward.traced
    forward.noise, forward.traced = noise, False
    try:
        yield
    finally:
        forward.noise, forward.traced = previous


def _scaled(image: Tensor, sd: float) -> Tensor:
    low, high = image.aminmax()
    return sd * (high - low)


def _noisy(image: Tensor, sd: Tensor, count: int, rng: torch.Generator) -> Tensor:
    noise = torch.stack([torch.randn(image.shape[1:], generator=rng) for _ in range(count)])
    return (image + noise.to(image) * sd).requires_grad_()
