"""The position on its layer's map where a unit responds most to an image."""

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

#: Finds positions, counted row by row, from a scene, channels, samples, and whether to maximize.
_Finder: TypeAlias = Callable[[Scene, Tensor, Tensor, bool], Tensor]


class UnitPositions:
    """Finds where units respond most, for objectives of a single channel or neuron.

    ``layers`` has the layer on whose map each objective responds, or None if it has no single
    position.
    """

    def __init__(self, objectives: Sequence[Objective], target: Target) -> None:
        count = len(objectives)
        self.layers: list[str | None] = [None] * count
        self._sign = torch.ones(count)
        self._channel = torch.zeros(count, dtype=torch.int64)
        self._finder_index = torch.full((count,), -1)
        self._finders: list[_Finder] = []
        index_by_key: dict[object, int] = {}
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
            if key not in index_by_key:
                index_by_key[key] = len(self._finders)
                self._finders.append(_position_finder(unit, target))
            self.layers[index] = unit.layer
            self._sign[index] = math.copysign(1, sign)
            self._channel[index] = unit.channel
            self._finder_index[index] = index_by_key[key]

    def find(self, scene: Scene, units: Tensor, samples: Tensor, largest: bool) -> Tensor:
        """Return where units respond most (or least) to samples of a scene, (m,).

        Positions are counted row by row on the map of the unit's layer; -1 for units without a
        position.
        """
        places = torch.full((len(units),), -1)
        if not len(units):
            return places
        finder_indices, maximize = self._finder_index[units], (self._sign[units] > 0) == largest
        for index in finder_indices.unique().tolist():
            for highest in (True, False):
                rows = torch.nonzero((finder_indices == index) & (maximize == highest))[:, 0]
                if index >= 0 and len(rows):
                    channels = self._channel[units[rows]]
                    places[rows] = self._finders[index](scene, channels, samples[rows], highest)
        return places


def _position_finder(unit: Channel | Neuron, target: Target) -> _Finder:
    info = target.layer(unit.layer)
    if isinstance(unit, Neuron):
        flat = 0
        for coordinate, side in zip(unit.place(target)[1:], info.positions, strict=True):
            flat = flat * side + coordinate
        return lambda scene, channels, samples, largest: torch.full_like(channels, flat)
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
