"""How well images of a unit tell another network which natural images excite it.

A two-alternative forced choice without people. [Zimmermann2024]_
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from featviz.networks.layers import INPUT
from featviz.networks.model import Model
from featviz.resample import resize
from featviz.types import Tensor

#: Turns a difference of cosines into a probability, as in the paper, where people's answers set it.
ALPHA = 16.0
#: Images per forward pass of a judge.
TOGETHER = 4
#: Natural images needed in each group, and how many random ones are drawn.
FEWEST, DRAWN = 3, 32
#: Other images needed for each top one: the nine highest of fifteen are no selection.
OTHERS = 2


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


class JudgeEmbeddings:
    """The embeddings of a judge of dataset images, each computed once: units share images.

    ``read`` returns an image (C, H, W) in [0, 1] by its index in the dataset.
    """

    def __init__(self, judge: Model, read: Callable[[int], Tensor]) -> None:
        self.judge, self.read = judge, read
        self._stored: dict[int, Tensor] = {}

    def __getitem__(self, indices: Sequence[int]) -> Tensor:
        """Return the embeddings (B, D) of dataset images."""
        missing = [i for i in dict.fromkeys(indices) if i not in self._stored]
        if missing:
            images = torch.stack([self.read(i) for i in missing])
            self._stored |= zip(missing, fitted(self.judge, images, None, TOGETHER), strict=True)
        return torch.stack([self._stored[i] for i in indices])

    def told_apart(
        self,
        pictures: Tensor,
        negatives: Tensor,
        top: Sequence[int],
        bottom: Sequence[int],
        others: Sequence[int],
    ) -> Tensor:
        """Return the margins (T, B) of a unit's top and bottom images, judging by its pictures.

        ``pictures`` (P, C, H, W) raise the unit, ``negatives`` (N, C, H, W) lower it; without any,
        only the former are compared with. Embeddings count from the mean of the ``others``.
        """
        centre = self[others].mean(0)
        raised, high, low = (
            F.normalize(e - centre, dim=-1)
            for e in (fitted(self.judge, pictures, None, TOGETHER), self[top], self[bottom])
        )
        up, down = raised.mean(0), torch.zeros_like(centre)
        if len(negatives):
            lowered = fitted(self.judge, negatives, None, TOGETHER)
            down = F.normalize(lowered - centre, dim=-1).mean(0)
        return margins(high, low, up, down)


def score(found: Tensor) -> float:
    """Return the mean probability of the right choice, given margins; 0.5 is chance."""
    return float((ALPHA * found).sigmoid().mean())


def is_selection(top: int, others: int) -> bool:
    """Return whether ``top`` images are enough, and a selection beside so many others."""
    return top >= FEWEST and others >= OTHERS * top
