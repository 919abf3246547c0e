"""Where in its layer's map a unit responds most to an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

from featviz.dataset_examples.receptive_field import grid
from featviz.objectives.base import ONE, Objective, terms_of
from featviz.objectives.reduction import weights_of
from featviz.objectives.scene import Scene, Target
from featviz.objectives.units import Channel, Neuron
from featviz.types import Tensor

#: Finds positions, counted row by row, from a scene, channels, samples, and largest or smallest.
_Find: TypeAlias = Callable[[Scene, Tensor, Tensor, bool], Tensor]


class UnitPositions:
    """Finds where units respond most, for objectives that are a channel's or a neuron's.

    ``layers`` has the layer on whose map each objective responds, or None where it has no single
    place.
    """

    def __init__(self, objectives: Sequence[Objective], target: Target) -> None:
        count = len(objectives)
        self.layers: list[str | None] = [None] * count
        self._sign = torch.ones(count)
        self._channel = torch.zeros(count, dtype=torch.int64)
        self._finder = torch.full((count,), -1)
        self._find: list[_Find] = []
        finders: dict[object, int] = {}
        for index, goal in enumerate(objectives):
            terms = [(c, o) for c, o in terms_of(goal) if o is not ONE]
            if len(terms) != 1:
                continue
            sign, unit = terms[0]
            if not isinstance(unit, (Channel, Neuron)):
                continue
            if grid(target.layer(unit.layer), target) is None:
                continue
            key = unit.kin if isinstance(unit, Channel) else unit
            if key not in finders:
                finders[key] = len(self._find)
                self._find.append(_finder(unit, target))
            self.layers[index] = unit.layer
            self._sign[index] = math.copysign(1, sign)
            self._channel[index] = unit.channel
            self._finder[index] = finders[key]

    def find(self, scene: Scene, units: Tensor, samples: Tensor, largest: bool) -> Tensor:
        """Return where units respond most (or least) to samples of a scene, (m,).

        Counted row by row over the positions of the unit's layer; -1 where it has no place.
        """
        places = torch.full((len(units),), -1)
        if not len(units):
            return places
        finder, rising = self._finder[units], (self._sign[units] > 0) == largest
        for number in finder.unique().tolist():
            for top in (True, False):
                here = torch.nonzero((finder == number) & (rising == top))[:, 0]
                if number >= 0 and len(here):
                    channels = self._channel[units[here]]
                    places[here] = self._find[number](scene, channels, samples[here], top)
        return places


def _finder(unit: Channel | Neuron, target: Target) -> _Find:
    info = target.layer(unit.layer)
    if isinstance(unit, Neuron):
        fixed = 0
        for place, side in zip(unit.place(target)[1:], info.positions, strict=True):
            fixed = fixed * side + place
        return lambda scene, channels, samples, largest: torch.full_like(channels, fixed)
    weights = weights_of(unit.where, info, target)
    squared = unit.reduce in ("mean_square", "sum_square", "norm")

    def find(scene: Scene, channels: Tensor, samples: Tensor, largest: bool) -> Tensor:
        maps = scene[info.name].movedim(info.axis, 1)
        maps = maps[samples.to(maps.device), channels.to(maps.device)].flatten(1)
        maps = maps.square() if squared else maps
        maps = maps if largest else -maps
        if weights is not None:
            maps = maps.masked_fill(weights.flatten() == 0, -torch.inf)
        return maps.argmax(1).cpu()

    return find
