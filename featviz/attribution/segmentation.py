"""Segments of an image by colour."""

from __future__ import annotations

import numpy as np
import torch

from featviz.attribution.baselines import blurred
from featviz.errors import FeatvizError
from featviz.types import Tensor


def segment(image: Tensor, *, scale: float, least: int = 20, sd: float = 0.8) -> Tensor:
    """Return the segment of each pixel (H, W) of an image (C, H, W), numbered from 0.

    The graph-based segmentation of [Felzenszwalb2004]_: neighbouring segments are joined, the most
    alike first, if the step between them is at most the largest within either plus ``scale`` /
    (255 pixels); then segments of fewer than ``least`` pixels with their most similar neighbour.
    The image is blurred with ``sd`` pixels first. A larger scale makes larger segments.

    Raises
    ------
    FeatvizError
        If the image is not (C, H, W).
    """
    if image.ndim != 3:
        raise FeatvizError(f"segments are of images (C, H, W), not of {tuple(image.shape)}")
    smooth = image.detach().float().cpu()
    if sd > 0:
        smooth = blurred(smooth[None], sd / max(image.shape[1:]))[0]
    labels = np.arange(smooth[0].numel()).reshape(smooth.shape[1:])
    colours = smooth.permute(1, 2, 0).double().numpy()
    ends, lengths = _edges(labels, colours)
    order = np.argsort(lengths, kind="stable")
    forest = _Forest(labels.size)
    threshold = np.full(labels.size, scale / 255.0)
    pairs, steps = ends[order].tolist(), lengths[order].tolist()
    for (a, b), step in zip(pairs, steps, strict=True):
        a, b = forest.root(a), forest.root(b)
        if a != b and step <= threshold[a] and step <= threshold[b]:
            joined = forest.join(a, b)
            threshold[joined] = step + scale / 255.0 / forest.sizes[joined]
    for a, b in pairs:
        a, b = forest.root(a), forest.root(b)
        if a != b and min(forest.sizes[a], forest.sizes[b]) < least:
            forest.join(a, b)
    roots = torch.tensor([forest.root(i) for i in range(labels.size)])
    return roots.unique(return_inverse=True)[1].view(smooth.shape[1:])


def _edges(labels: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of neighbouring pixels (E, 2), diagonals included, and colour steps (E,)."""
    pairs = [
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1, :], np.s_[1:, :]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
        (np.s_[1:, :-1], np.s_[:-1, 1:]),
    ]
    ends = [np.stack([labels[a].ravel(), labels[b].ravel()], 1) for a, b in pairs]
    steps = [np.linalg.norm(colours[a] - colours[b], axis=-1).ravel() for a, b in pairs]
    return np.concatenate(ends), np.concatenate(steps)


class _Forest:
    """Disjoint sets with path halving and union by size."""

    def __init__(self, count: int) -> None:
        self.parents = list(range(count))
        self.sizes = [1] * count

    def root(self, item: int) -> int:
        parents = self.parents
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    def join(self, a: int, b: int) -> int:
        if self.sizes[a] < self.sizes[b]:
            a, b = b, a
        self.parents[b] = a
        self.sizes[a] += self.sizes[b]
        return a
