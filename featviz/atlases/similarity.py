"""Which units of a layer are alike: by what they respond to, or by their weights alone."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from featviz.networks.layers import module_names, split_address
from featviz.networks.model import Model
from featviz.types import Tensor

#: How many similar units are kept for each.
MOST = 12


def nearest(likeness: Tensor, most: int = MOST) -> tuple[Tensor, Tensor]:
    """Return, for a matrix (U, U) of likeness, the best others of each unit and their values.

    A unit without a likeness (NaN, as of one that never varies) has no neighbours: its values
    are -inf.
    """
    count = len(likeness)
    others = likeness.masked_fill(torch.eye(count, dtype=torch.bool), -torch.inf)
    others = others.nan_to_num(-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    best = others.topk(min(most, count - 1), dim=1)
    return best.indices, best.values


def by_weights(model: Model, layer: str) -> Tensor | None:
    """Return the cosine (U, U) between the units' incoming weights.

    They are those of the layer's own convolution or linear map; in a block, of its last one that
    has as many outputs as the block has units. None where there is none.
    """
    info = model.layer(layer)
    module = module_names(model.net).get(split_address(layer)[0])
    if module is None:
        return None
    fitting = [
        part
        for part in module.modules()
        if isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)) and len(part.weight) == info.units
    ]
    if not fitting or getattr(fitting[-1], "transposed", False):
        return None
    rows = F.normalize(fitting[-1].weight.detach().float().cpu().flatten(1), dim=1)
    return rows @ rows.T
