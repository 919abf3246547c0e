"""Train a sparse autoencoder on the activations of a layer."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from featviz.errors import FeatvizError
from featviz.networks.dictionaries.dictionary import Dictionary
from featviz.seeds import generator
from featviz.types import Tensor

#: Rows of a step, and the rate of Adam for activations of norm about √units.
_ROWS, _RATE = 1024, 2e-3
#: A feature that was not used in this many steps is given a share of what is left over, of this
#: weight and through this many of the dead (Gao2024, appendix A.2).
_PATIENCE, _AUXILIARY, _DEAD = 100, 1 / 32, 64


def train(rows: Tensor, features: int, k: int, steps: int, seed: int) -> Dictionary:
    """Return a TopK autoencoder of activations (N, units). [Gao2024]_.

    The decoder's rows have norm 1. Features that are never used are revived by letting them encode
    the error that the others leave.
    """
    source = generator(seed, "dictionary")
    center = rows.mean(0)
    scale = (rows - center).square().mean().sqrt()
    if not scale > 0:
        raise FeatvizError("the activations are all alike: give other images, or another layer")
    data = (rows - center) / scale
    # Directions of the data themselves: a feature that points nowhere would be dead from the start.
    drawn = torch.randint(len(data), (features,), generator=source).to(rows.device)
    noise = 0.1 * torch.randn(features, rows.shape[1], generator=source).to(rows.device)
    decoder = F.normalize(data[drawn] + noise, dim=1)
    parameters = [decoder, decoder.clone(), rows.new_zeros(features), rows.new_zeros(rows.shape[1])]
    decoder, encoder, bias, shift = (p.requires_grad_() for p in parameters)
    optimizer = torch.optim.Adam([decoder, encoder, bias, shift], _RATE, betas=(0.9, 0.999))
    idle = torch.zeros(features, device=rows.device)
    for step in range(steps):
        for group in optimizer.param_groups:  # the last fifth settles
            group["lr"] = _RATE * min(1.0, 5 * (steps - step) / steps)
        batch = data[torch.randint(len(data), (_ROWS,), generator=source).to(rows.device)]
        values = F.linear(batch - shift, encoder, bias)
        codes = _largest(values, k)
        error = batch - codes @ decoder - shift
        loss = error.square().mean()
        dead = idle > _PATIENCE
        if dead.any():
            revived = _largest(values.masked_fill(~dead, -torch.inf), min(_DEAD, int(dead.sum())))
            loss = loss + _AUXILIARY * (error.detach() - revived @ decoder).square().mean()
        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            optimizer.step()
            decoder.copy_(F.normalize(decoder, dim=1))
            idle = torch.where((codes > 0).any(0), 0, idle + 1)
    with torch.no_grad():
        moved = (center + scale * shift).detach()
        made = Dictionary(
            encoder, decoder, bias=scale * bias, center=moved, offset=moved,
            nonlinearity=f"topk:{k}",
        )  # fmt: skip
        made.notes = measure(made, rows)
        return made


def measure(dictionary: Dictionary, rows: Tensor) -> dict[str, float]:
    """Return the fraction of the variance that codes explain, and of features that are used."""
    explained, used = 0.0, torch.zeros(dictionary.features, dtype=torch.bool, device=rows.device)
    total = (rows - rows.mean(0)).square().sum()
    for part in rows.split(8192):
        codes = dictionary(part)
        used |= (codes > 0).any(0)
        explained += float((part - dictionary.decode(codes)).square().sum() / total)
    return {"explained": 1 - explained, "used": float(used.float().mean())}


def _largest(values: Tensor, k: int) -> Tensor:
    """Keep the ``k`` largest values of each row, where they are positive."""
    top = values.topk(k, dim=1)
    return torch.zeros_like(values).scatter(1, top.indices, top.values.relu())
