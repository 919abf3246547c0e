"""Place vectors on a plane, and divide it into cells."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Literal

import torch

from featviz.errors import FeatvizError
from featviz.recipes.factorization import pca
from featviz.types import Tensor
from featviz.validation import one_of

#: The settings of UMAP in the activation atlas of [Carter2019]_.
_NEIGHBOURS, _MIN_DISTANCE = 20, 0.01
#: The share of the points on each side of each axis that are moved to the edge.
_TRIMMED = 0.01


def planar(
    vectors: Tensor, method: Literal["auto", "umap", "pca"] = "auto", *, seed: int = 0
) -> tuple[Tensor, str]:
    """Return places (N, 2) in [0, 1] of vectors (N, K), near where these are alike, and the method.

    ``auto`` is UMAP with cosine distances [McInnes2018]_ if it is installed (``pip install
    featviz[umap]``), otherwise the two principal components of the vectors divided by their
    lengths. The outermost percent of each side lies on the edge.

    Raises
    ------
    FeatvizError
        If there are fewer than three vectors, or UMAP is asked for and not installed.
    """
    method = one_of("method", method, ["auto", "umap", "pca"])  # type: ignore[assignment]
    if len(vectors) < 3:
        raise FeatvizError(f"a map of {len(vectors)} activations: gather at least 3")
    installed = importlib.util.find_spec("umap") is not None
    if method == "umap" and not installed:
        raise FeatvizError("UMAP is not installed: pip install 'featviz[umap]', or method='pca'")
    if method == "umap" or (method == "auto" and installed):
        places, used = _umap(vectors, seed), "umap"
    else:
        lengths = vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)
        places, used = pca(vectors / lengths, 2)[0], "pca"
    edges = torch.tensor([_TRIMMED, 1 - _TRIMMED], dtype=places.dtype)
    low, high = places.quantile(edges, dim=0)
    return ((places - low) / (high - low).clamp_min(1e-12)).clamp(0, 1).float(), used


def _umap(vectors: Tensor, seed: int) -> Tensor:
    import umap

    reducer = umap.UMAP(
        n_components=2,
        n_neighbors=min(_NEIGHBOURS, len(vectors) - 1),
        min_dist=_MIN_DISTANCE,
        metric="cosine",
        random_state=seed % 2**32,
        n_jobs=1,  # or it warns that a seed allows no more
    )
    return torch.as_tensor(reducer.fit_transform(vectors.numpy())).double()


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of the plane: its row and column, and the indices of the vectors in it."""

    row: int
    column: int
    members: Tensor


def cells_of(places: Tensor, side: int, least: int) -> list[Cell]:
    """Return the cells of a grid of ``side`` x ``side`` with at least ``least`` of the places.

    The first axis goes to the right and the second one up, as in a plot; row 0 is the top.
    """
    columns = (places[:, 0] * side).long().clamp(0, side - 1)
    rows = side - 1 - (places[:, 1] * side).long().clamp(0, side - 1)
    keys = rows * side + columns
    cells = []
    for key in keys.unique().tolist():
        members = (keys == key).nonzero().flatten()
        if len(members) >= least:
            cells.append(Cell(key // side, key % side, members))
    return cells


def inverse_moments(vectors: Tensor, shrinkage: float = 0.01) -> Tensor:
    """Return the inverse (K, K) of E[a aᵀ] + shrinkage · (mean of its diagonal) I.

    A direction multiplied by it points to what is particular about an activation: what all
    activations have in common counts less. [Carter2019]_.
    """
    values = vectors.double()
    moments = values.T @ values / len(values)
    mean = moments.diagonal().mean().clamp_min(1e-12)
    ridge = shrinkage * mean * torch.eye(len(moments), dtype=moments.dtype)
    return torch.linalg.inv(moments + ridge).float() * mean.float()
