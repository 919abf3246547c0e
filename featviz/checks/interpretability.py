"""Whether the images of a unit tell another network which natural images excite it.

A two-alternative forced choice without people. [Zimmermann2024]_
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from featviz.checks.path import FEWEST, OTHERS
from featviz.checks.verdicts import Criterion, judge, not_measured
from featviz.networks.layers import INPUT
from featviz.networks.model import Model
from featviz.resample import resize
from featviz.types import Tensor

#: Turns a difference of cosines into a probability, as in the paper, where people's answers set it.
ALPHA = 16.0
#: Images per forward pass of a judge.
TOGETHER = 4


def embed(model: Model, images: Tensor, layer: str | None = None) -> Tensor:
    """Return the activations of ``layer``, averaged over positions, (B, D), on the CPU.

    By default it is the last layer with positions, or the logits where there is none.
    """
    table = model.layers(tuple(images.shape[2:]))
    if layer is None:
        inner = [i for i in table if i.batched and i.name != INPUT]
        spread = [i.name for i in inner if any(side > 1 for side in i.positions)]
        layer = spread[-1] if spread else model.logits
    info = table.find(layer)
    with torch.no_grad():
        units = model.activations(images.to(model.device), layer)[layer]
    return units.movedim(info.axis, 1).reshape(len(units), info.units, -1).float().mean(2).cpu()


def fitted(model: Model, images: Tensor, layer: str | None, batch_size: int) -> Tensor:
    """Return the embeddings (B, D) of images (B, C, H, W) of any size."""
    inputs = resize(images.float(), model.size, antialias=True).clamp(0, 1)
    return torch.cat([embed(model, some, layer) for some in inputs.split(batch_size)])


def margins(top: Tensor, bottom: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Return by how much each top image is liker to ``up`` than each bottom one is, (T, B).

    ``top`` (T, D) and ``bottom`` (B, D) are unit vectors, ``up`` and ``down`` (D,) the means of the
    unit vectors of what raises and what lowers the unit.
    """
    direction = up - down
    return (top @ direction)[:, None] - (bottom @ direction)[None]


def told_apart(
    judge_model: Model, pictures: Tensor, negative: Tensor, natural: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Return the margins (T, B) of a judge; ``natural`` are top, bottom and other images.

    Embeddings count from the mean of the other images.
    """
    shown = [fitted(judge_model, p, None, TOGETHER) for p in (pictures, negative, *natural)]
    centre = shown[-1].mean(0)
    up, down, top, bottom = (F.normalize(s - centre, dim=-1) for s in shown[:-1])
    return margins(top, bottom, up.mean(0), down.mean(0))


def interpretability_criterion(
    by_judge: Mapping[str, Tensor], top: int, others: int, why: str = ""
) -> Criterion:
    """Judge how well other networks tell exciting images from others, by the margins (T, B)."""
    name = "interpretability"
    if not by_judge:
        return not_measured(name, why)
    if top < FEWEST or others < OTHERS * top:
        needed = max(FEWEST, top) * (OTHERS + 1)
        return not_measured(name, f"too few images: give at least {needed}, or a smaller k")
    scores = {n: float((ALPHA * m).sigmoid().mean()) for n, m in by_judge.items()}
    right = {
        n: float(((m > 0).double() + (m == 0).double() / 2).mean()) for n, m in by_judge.items()
    }
    value = sum(scores.values()) / len(scores)
    accuracy = sum(right.values()) / len(right)
    reason = (
        f"by the images, {len(right)} other network{'s' * (len(right) > 1)} tell the {top} highest "
        f"from the {top} lowest in {accuracy:.0%} of pairs"
    )
    return judge(name, value, reason, scores=scores, right=right, accuracy=accuracy)
