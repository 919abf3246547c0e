"""Similarity of the units of a layer, by their activations or by their weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from featviz.networks.layers import module_names, split_address
from featviz.networks.model import Model
from featviz.types import Tensor

#: Number of similar units to store for each unit.
MOST = 12


def nearest(similarity: Tensor, most: int = MOST) -> tuple[Tensor, Tensor]:
    """Return the indices and similarities of each unit's nearest units, from a matrix (U, U).

    A unit whose similarities are NaN, as for a constant unit, has no neighbours: the values are
    -inf.
    """
    count = len(similarity)
    others = similarity.masked_fill(torch.eye(count, dtype=torch.bool), -torch.inf)
    others = others.nan_to_num(-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    best = others.topk(min(most, count - 1), dim=1)
    return best.indices, best.values


def by_weights(model: Model, layer: str) -> Tensor | None:
    """Return the cosine similarities (U, U) of the units' incoming weights.

    The weights are those of the layer's convolution or linear map; for a block, of its last one
    with as many outputs as the block has units. Return None if there is none.
    """
    info = model.layer(layer)
    module = module_names(model.net).get(split_address(layer)[0])
    if module is None:
        return None
    candidates = [
        submodule
        for submodule in module.modules()
        if isinstance(submodule, (nn.Linear, nn.modules.conv._ConvNd))
        and len(submodule.weight) == info.units
    ]
    if not candidates or getattr(candidates[-1], "transposed", False):
        return None
    rows = F.normalize(candidates[-1].weight.detach().float().cpu().flatten(1), dim=1)
    return rows @ rows.T
