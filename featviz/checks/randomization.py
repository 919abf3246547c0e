"""A network with its weights in random order: what depends on them must change.

[Adebayo2018]_
"""

from __future__ import annotations

import itertools

import kornia.metrics
import torch
from torch import nn

from featviz.checks.strength import share
from featviz.checks.verdicts import Criterion, judged
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.seeds import generator
from featviz.types import Tensor

#: The side of the window of SSIM.
_WINDOW = 11
#: Images that are the same to the eight bits of a file.
_SAME = 1 / 512


def permuted(model: Model, seed: int) -> Model:
    """Return a deep copy of a model with the numbers of each tensor in random order.

    Weights, biases and the statistics of batch-norms keep their magnitudes and lose what was
    learnt. Every tensor has a generator of its own, so that the order of the modules does not
    matter; one that several layers share is permuted once. The model itself is not touched.

    Raises
    ------
    FeatvizError
        If the network has no weights that are known, or cannot be copied.
    """
    if not any(True for _ in model.net.parameters()):
        raise FeatvizError("the network has no weights that are known: wrap the nn.Module itself")
    try:
        twin = model.copy()
    except (RuntimeError, TypeError) as error:
        raise FeatvizError(
            f"the network cannot be copied: {' '.join(str(error).split())}"
        ) from error
    twin.name = None
    with torch.no_grad():
        for name, tensor in _tensors(twin.net):
            draw = generator(seed, f"permuted {name}")
            order = torch.randperm(tensor.numel(), generator=draw).to(tensor.device)
            tensor.copy_(tensor.flatten()[order].view_as(tensor))
    return twin


def _tensors(net: nn.Module) -> list[tuple[str, Tensor]]:
    both = itertools.chain(net.named_parameters(), net.named_buffers())
    return [(name, tensor) for name, tensor in both if tensor.is_floating_point()]


def correlation(a: Tensor, b: Tensor) -> float:
    """Return Pearson's correlation of the pixels of two images (C, *size); 1 if they are equal.

    NaN where one of two different images is all of one value.
    """
    if bool((a - b).abs().max() <= _SAME):
        return 1.0
    one, two = (p.double().flatten() - p.double().mean() for p in (a, b))
    return float((one @ two) / (one.norm() * two.norm()))


def likeness(a: Tensor, b: Tensor) -> float:
    """Return the mean SSIM of two images (C, H, W); NaN for other data or very small ones."""
    if a.ndim != 3 or min(a.shape[1:]) < _WINDOW:
        return float("nan")
    return float(kornia.metrics.ssim(a[None].float(), b[None].float(), _WINDOW).mean())


def among(pictures: Tensor) -> dict[str, float]:
    """Return how alike images (n, C, *size) are, as means over all pairs; NaN for one."""
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
    """Judge an image by the one that the permuted network gives.

    ``score`` is the image's, ``base`` that of its pixels in random order and ``reached`` that of
    the ``other`` image on the trained network. The value is what survives: the larger of the
    correlation of both images and of the share of the score that the other has.
    """
    alike = correlation(picture, other)
    kept = share(reached, score, base)
    known = [v for v in (alike, kept) if v == v]
    figures = {
        "correlation": alike,
        "ssim": likeness(picture, other),
        "score_share": kept,
        "score": reached,
        "seeds": among(seeds),
    }
    why = f"with permuted weights, correlation {alike:.2f} and {kept:.0%} of the score remain"
    return judged("randomized", max(known, default=float("nan")), why, **figures)
