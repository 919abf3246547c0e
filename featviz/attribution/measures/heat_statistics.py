"""Statistics of heat maps alone: how concentrated they are, how alike, and where they point."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from featviz.errors import FeatvizError
from featviz.types import Tensor


def complexity(heat: Tensor) -> Tensor:
    """Return the entropy (B,) in nats of the shares |h| / Σ |h| of maps (B, *size). [Bhatt2020]_.

    It is 0 for a single pixel, and log(pixels) for a constant map; NaN for zeros.
    """
    shares = _shares(heat)
    return -torch.special.xlogy(shares, shares).sum(1)


def sparseness(heat: Tensor) -> Tensor:
    """Return the Gini index (B,) of |h| of maps (B, *size). [Chalasani2020]_.

    It is 0 for a constant map and 1 - 1 / pixels for a single pixel; NaN for zeros.
    """
    shares = _shares(heat).sort(1).values
    count = shares.shape[1]
    weights = (count - torch.arange(count, dtype=shares.dtype) - 0.5) / count
    return 1 - 2 * (shares * weights).sum(1)


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return Spearman's rank correlation (B,) of maps (B, *size); NaN for a constant map.

    Equal values have the mean of their ranks.
    """
    _check_alike(first, second)
    pairs = zip(first.flatten(1).double(), second.flatten(1).double(), strict=True)
    return torch.stack([pearson(_ranks(a), _ranks(b)) for a, b in pairs])


def ssim(first: Tensor, second: Tensor, *, window: int = 7) -> Tensor:
    """Return the mean structural similarity (B,) of maps (B, *size) in [-1, 1]. [Wang2004]_.

    Windows have ``window`` pixels a side and lie within the map; the data range is 2.

    Raises
    ------
    FeatvizError
        If the maps differ in shape, or are smaller than a window.
    """
    _check_alike(first, second)
    axes = first.ndim - 1
    if min(first.shape[1:]) < window:
        raise FeatvizError(f"maps of {tuple(first.shape[1:])} are smaller than {window} pixels")
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]

    def mean(values: Tensor) -> Tensor:
        pooled: Tensor = pool(values[:, None], window, 1)
        return pooled[:, 0]

    a, b = first.double(), second.double()
    count = window**axes
    unbiased = count / (count - 1)
    mean_a, mean_b = mean(a), mean(b)
    var_a = unbiased * (mean(a * a) - mean_a**2)
    var_b = unbiased * (mean(b * b) - mean_b**2)
    covariance = unbiased * (mean(a * b) - mean_a * mean_b)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return (luminance * structure).flatten(1).mean(1)


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the L2 distance (B,) of maps (B, *size), each divided by its L2 norm; NaN for zeros.

    It is 0 for maps that differ in scale only, √2 for orthogonal ones and at most 2.
    """
    _check_alike(first, second)
    a, b = (m.flatten(1).double() for m in (first, second))
    return (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).norm(dim=1)


def pointing(heat: Tensor, masks: Tensor, *, tolerance: float = 0.0) -> Tensor:
    """Return whether the hottest pixel (B,) lies in the object: the pointing game. [Zhang2018]_.

    ``masks`` (B, *size) are true on the object; up to ``tolerance`` pixels away is a hit, too (15
    in the paper). Where several pixels are equally hot it is the share of them that hit.

    Raises
    ------
    FeatvizError
        If the masks do not fit the maps, or one has no object.
    """
    masks = _checked_masks(heat, masks)
    hits = []
    for values, mask in zip(heat, masks, strict=True):
        hottest = values == values.amax()
        if tolerance > 0:
            inside = mask.nonzero().double()
            near = [
                torch.cdist(some.double(), inside).amin(1) <= tolerance
                for some in hottest.nonzero().split(256)
            ]
            hits.append(torch.cat(near).double().mean())
        else:
            hits.append(mask[hottest].double().mean())
    return torch.stack(hits)


def localization(heat: Tensor, masks: Tensor) -> Tensor:
    """Return the area (B,) under the precision-recall curve of heat as a detector of ``masks``.

    It is the average precision: the sum over the distinct values of the heat, from the hottest, of
    the precision there times the increase of the recall. By chance it is the mask's share.

    Raises
    ------
    FeatvizError
        If the masks do not fit the maps, or one has no object.
    """
    masks = _checked_masks(heat, masks)
    areas = []
    for values, mask in zip(heat.flatten(1), masks.flatten(1), strict=True):
        values, order = values.sort(descending=True)
        found = mask[order].double().cumsum(0)
        last = torch.ones_like(mask)
        last[:-1] = values[1:] != values[:-1]  # the last pixel of each value
        ends = last.nonzero().flatten()
        precision = found[ends] / (ends + 1)
        recall = found[ends] / found[-1]
        areas.append((precision * recall.diff(prepend=recall.new_zeros(1))).sum())
    return torch.stack(areas)


def pearson(first: Tensor, second: Tensor) -> Tensor:
    """Return the correlation of two series (N,); NaN if one is constant."""
    a, b = first.double(), second.double()
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / (a.norm() * b.norm())


def _shares(heat: Tensor) -> Tensor:
    flat = heat.flatten(1).double().abs()
    return flat / flat.sum(1, keepdim=True)


def _ranks(values: Tensor) -> Tensor:
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    middles = counts.cumsum(0) - (counts - 1) / 2
    return middles.double()[inverse]


def _check_alike(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.ndim < 2:
        raise FeatvizError(
            f"maps (B, *size) of one shape are compared, not {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )


def _checked_masks(heat: Tensor, masks: Tensor) -> Tensor:
    if masks.shape != heat.shape:
        raise FeatvizError(
            f"masks of shape {tuple(masks.shape)} do not fit maps of {tuple(heat.shape)}"
        )
    masks = masks > 0
    if not masks.flatten(1).any(1).all():
        raise FeatvizError("each mask needs an object: one is empty")
    return masks
