"""Small matrix factorizations: non-negative factors, and principal components."""

from __future__ import annotations

import torch

from featviz.errors import FeatvizError
from featviz.seeds import generator
from featviz.types import Tensor
from featviz.validation import positive_int

_FLOOR = 1e-12


def nmf(
    matrix: Tensor, components: int, *, iterations: int = 300, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Factor a non-negative matrix (N, D) as W H, W (N, K) and H (K, D) non-negative.

    Minimizes the squared error by multiplicative updates [Lee1999]_ in float64, from the
    non-negative double SVD [Boutsidis2008]_ with its zeros filled by small random numbers of
    ``seed``. Rows of H have norm 1, and the components are sorted by their share of the total.

    Raises
    ------
    FeatvizError
        If the matrix is not two-dimensional, finite, non-negative and non-zero, or has fewer rows
        or columns than ``components``.
    """
    positive_int("components", components)
    if matrix.ndim != 2 or not torch.isfinite(matrix).all() or (matrix < 0).any():
        raise FeatvizError("nmf takes a matrix of finite numbers that are not negative")
    if components > min(matrix.shape):
        rows, columns = matrix.shape
        raise FeatvizError(f"a {rows}x{columns} matrix has no {components} components")
    if not matrix.any():
        raise FeatvizError("nmf: the matrix is zero")
    values = matrix.detach().double().cpu()
    left, right = _start(values, components, generator(seed, "nmf"))
    for _ in range(iterations):
        right *= (left.T @ values) / (left.T @ left @ right).clamp_min(_FLOOR)
        left *= (values @ right.T) / (left @ (right @ right.T)).clamp_min(_FLOOR)
    norms = right.norm(dim=1).clamp_min(_FLOOR)
    left, right = left * norms, right / norms[:, None]
    order = (left.sum(0) * right.sum(1)).argsort(descending=True)
    return left[:, order], right[order]


def _start(values: Tensor, components: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    u, s, vt = torch.linalg.svd(values, full_matrices=False)
    columns, rows = [], []
    for k in range(components):
        pairs = [(u[:, k].clamp_min(0), vt[k].clamp_min(0))]
        pairs.append(((-u[:, k]).clamp_min(0), (-vt[k]).clamp_min(0)))
        a, b = max(pairs, key=lambda pair: float(pair[0].norm() * pair[1].norm()))
        size = (s[k] * a.norm() * b.norm()).sqrt()
        columns.append(a / a.norm().clamp_min(_FLOOR) * size)
        rows.append(b / b.norm().clamp_min(_FLOOR) * size)
    left, right = torch.stack(columns, 1), torch.stack(rows)
    mean = values.mean().sqrt() / 100  # zeros would stay zeros
    for factor in (left, right):
        noise = torch.rand(factor.shape, generator=random, dtype=factor.dtype)
        factor += (factor == 0) * noise * mean
    return left, right


def pca(matrix: Tensor, components: int, *, whiten: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores (N, K), axes (K, D) and the mean (D,) of a matrix (N, D).

    The largest entry of each axis is positive, so that the signs do not depend on the platform.
    With ``whiten``, each column of the scores has variance 1.

    Raises
    ------
    FeatvizError
        If the matrix has fewer rows or columns than ``components``.
    """
    positive_int("components", components)
    if matrix.ndim != 2 or components > min(matrix.shape):
        raise FeatvizError(f"a matrix {tuple(matrix.shape)} has no {components} components")
    values = matrix.detach().double().cpu()
    mean = values.mean(0)
    _, _, axes = torch.linalg.svd(values - mean, full_matrices=False)
    axes = axes[:components]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    scores = (values - mean) @ axes.T
    if whiten:
        scores = scores / scores.std(0, correction=0).clamp_min(_FLOOR)
    return scores, axes, mean
