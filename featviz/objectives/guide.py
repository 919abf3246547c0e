"""Guided dreams: amplify the features of a guide image wherever an image resembles it."""

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

#: Maximum number of products of positions held at a time: 64 MiB.
_MAX_PRODUCTS = 1 << 24


@dataclasses.dataclass(frozen=True, repr=False)
class GuideMatch(Unit):
    """See :func:`guide_match`."""

    kind = "guide_match"
    layer: str = word()
    picture: str = quoted()

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        if not info.positions:
            raise UnitError(
                f"a guide needs a layer with positions, which {info.name!r} has not: name an "
                "earlier layer"
            )
        activation = reference.activation(self.picture, self.layer, target)
        if len(activation) != 1:
            raise UnitError(f"expected one image, not {len(activation)}, in {self.picture!r}")
        guide = activation.movedim(info.axis, 1).flatten(2)[0].T  # (Q, units)

        def score(scene: Scene) -> Tensor:
            units = scene[self.layer].movedim(info.axis, 1).flatten(2).transpose(1, 2)
            rows = guide.to(units.dtype)
            return (units * rows[_best_matches(units.detach(), rows)]).sum(2).mean(1)

        return score


def _best_matches(units: Tensor, guide: Tensor) -> Tensor:
    """Return, for each position (B, P), the row of ``guide`` (Q, units) of largest product."""
    chunks = units.split(max(1, _MAX_PRODUCTS // (len(units) * len(guide))), dim=1)
    return torch.cat([(chunk @ guide.T).argmax(2) for chunk in chunks], dim=1)


def guide_match(layer: str, picture: Picture) -> Objective:
    """Return the mean over positions p of max over positions q of a[p]·r[q].

    Each position is drawn towards the feature vector of the guide ``picture`` that it already
    matches best: DeepDream's guided dreams. [Mordvintsev2015]_
    """
    return GuideMatch(str(layer), reference.register(picture, "picture"))
