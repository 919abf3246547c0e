"""Guided dreams: more of what a reference image has, wherever the own image is near to it."""

from __future__ import annotations

import dataclasses

import torch

from featviz.errors import UnitError
from featviz.objectives import reference
from featviz.objectives.base import Objective
from featviz.objectives.reference import Picture
from featviz.objectives.scene import Scene, Score, Target
from featviz.objectives.unit import Unit, quoted, word
from featviz.types import Tensor

#: Most products of positions held at a time, 64 MiB of them.
_MOST = 1 << 24


@dataclasses.dataclass(frozen=True, repr=False)
class GuideMatch(Unit):
    """See :func:`guide_match`."""

    kind = "guide_match"
    layer: str = word()
    picture: str = quoted()

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        found = reference.activation(self.picture, self.layer, target)
        if len(found) != 1:
            raise UnitError(f"expected one image, not {len(found)}, in {self.picture!r}")
        wanted = found.movedim(info.axis, 1).flatten(2)[0].T  # (Q, units)

        def score(scene: Scene) -> Tensor:
            own = scene[self.layer].movedim(info.axis, 1).flatten(2).transpose(1, 2)
            theirs = wanted.to(own.dtype)
            return (own * theirs[_nearest(own.detach(), theirs)]).sum(2).mean(1)

        return score


def _nearest(own: Tensor, wanted: Tensor) -> Tensor:
    """Return for each position (B, P) the row of ``wanted`` (Q, units) of the largest product."""
    pieces = own.split(max(1, _MOST // (len(own) * len(wanted))), dim=1)
    return torch.cat([(piece @ wanted.T).argmax(2) for piece in pieces], dim=1)


def guide_match(layer: str, picture: Picture) -> Objective:
    """Return the mean over positions p of max over positions q of a[p]·r[q].

    Every position is drawn to the feature vector of the guide ``picture`` that is its best match
    already: DeepDream's guided dreams. [Mordvintsev2015]_
    """
    return GuideMatch(str(layer), reference.keep(picture, "picture"))
