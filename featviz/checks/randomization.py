"""Permute the weights of a network: an image that depends on them must change.

[Adebayo2018]_
"""

from __future__ import annotations

import itertools

import kornia.metrics
import torch
from torch import nn

from featviz.checks.strength import relative_score
from featviz.checks.verdicts import Criterion, judge
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.seeds import generator
from featviz.types import Tensor

#: Side of the SSIM window in pixels.
_SSIM_WINDOW = 11
#: Images that differ by no more are equal in the eight bits of a file.
_EIGHT_BIT_TOLERANCE = 1 / 512


def permuted(model: Model, seed: int) -> Model:
    """Return a deep copy of a model with the values of each tensor permuted.

    Weights, biases and batch-norm statistics keep their magnitudes and lose what was learnt. Every
    tensor has its own generator, so that the order of the modules does not matter; a tensor shared
    by several layers is permuted once. The model itself is not changed.

    Raises
    ------
    FeatvizError
        If the network has no known weights, or cannot be copied.
    """
    if not any(True for _ in model.net.parameters()):
        raise FeatvizError("the network has no known weights: wrap the nn.Module itself")
    try:
        copy = model.copy()
    except (RuntimeError, TypeError) as error:
        raise FeatvizError(
            f"the network cannot be copied: {' '.join(str(error).split())}"
        ) from error
    copy.name = None
    with torch.no_grad():
        for name, tensor in _tensors(copy.net):
            rng = generator(seed, f"permuted {name}")
            permutation = torch.randperm(tensor.numel(), generator=rng).to(tensor.device)
            tensor.copy_(tensor.flatten()[permutation].view_as(tensor))
    return copy


def _tensors(net: nn.Module) -> list[tuple[str, Tensor]]:
    named_tensors = itertools.chain(net.named_parameters(), net.named_buffers())
    return [(name, tensor) for name, tensor in named_tensors if tensor.is_floating_point()]


def correlation(a: Tensor, b: Tensor) -> float:
    """Return Pearson's correlation of the pixels of two images (C, *size); 1 if they are equal.

    NaN if they differ and one of them is constant.
    """
    if bool((a - b).abs().max() <= _EIGHT_BIT_TOLERANCE):
        return 1.0
    x, y = (p.double().flatten() - p.double().mean() for p in (a, b))
    return float((x @ y) / (x.norm() * y.norm()))


def likeness(a: Tensor, b: Tensor) -> float:
    """Return the mean SSIM of two images (C, H, W); NaN for other shapes or very small images."""
    if a.ndim != 3 or min(a.shape[1:]) < _SSIM_WINDOW:
        return float("nan")
    return float(kornia.metrics.ssim(a[None].float(), b[None].float(), _SSIM_WINDOW).mean())


def among(pictures: Tensor) -> dict[str, float]:
    """Return the mean similarity of images (n, C, *size) over all pairs; NaN for one image."""
    pairs = list(itertools.combinations(pictures, 2))
    return {
        "correlation": _mean([correlation(a, b) for a, b in pairs]),
        "ssim": _mean([likeness(a, b) for a, b in pairs]),
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def compare(
    picture: Tensor, other: Tensor, *, score: float, base: float, reached: float, seeds: Tensor
) -> Criterion:
    """Judge an image by the image of the permuted network.

    ``score`` is the image's score, ``base`` that of its pixels in random order, and ``reached``
    that of the ``other`` image on the trained network. The value is what survives: the larger of
    the correlation of the two images and the relative score of the other image.
    """
    similarity = correlation(picture, other)
    score_share = relative_score(reached, score, base)
    finite = [v for v in (similarity, score_share) if v == v]
    figures = {
        "correlation": similarity,
        "ssim": likeness(picture, other),
        "score_share": score_share,
        "score": reached,
        "seeds": among(seeds),
    }
    why = (
        f"with permuted weights, correlation {similarity:.2f} and {score_share:.0%} of the score "
        "remain"
    )
    return judge("randomized", max(finite, default=float("nan")), why, **figures)
