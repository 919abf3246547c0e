"""The area of a transparent image: how much of it is opaque."""

from __future__ import annotations

import dataclasses

import torch

from featviz.errors import UnitError
from featviz.objectives.base import Objective
from featviz.objectives.scene import IMAGE, Scene, Score, Target
from featviz.objectives.unit import Unit, check_index, real, whole, word
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True, repr=False)
class Area(Unit):
    """See :func:`area`."""

    kind = "area"
    share: float = real()
    channel: int = whole(-1)
    layer: str = word(IMAGE)

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        if not 0 <= self.share <= 1:
            raise UnitError(f"area: the share must be between 0 and 1, not {self.share}")
        if not info.positions:
            raise UnitError(f"area: layer {self.layer!r} has no positions, shape {info.shape}")
        channel = info.units - 1 if self.channel == -1 else self.channel
        check_index(channel, info.units, "channel", info)

        def score(scene: Scene) -> Tensor:
            values = scene[self.layer].select(info.axis, channel).flatten(1)
            count = values.shape[1]
            template = torch.arange(count, device=values.device) >= round((1 - self.share) * count)
            return (values.sort(1).values - template.to(values)).square().mean(1)

        return score


def area(share: float, *, channel: int = -1, layer: str = IMAGE) -> Objective:
    """Return how far a mask is from being 1 on a share of the positions and 0 elsewhere.

    The mean of (m_k - r_k)^2, where m are the values of one channel in ascending order and r is 1
    for the last ``share`` of them and 0 for the others. By default the last channel of the image,
    which is the opacity if there is one. [Fong2019]_
    """
    return Area(float(share), int(channel), layer)
