"""Many objectives of the same images, in one forward pass and with few operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from featviz.dataset_examples.receptive_field import grid
from featviz.errors import FeatvizError
from featviz.networks.layers import LayerTable
from featviz.networks.model import Model
from featviz.objectives.base import ONE, Objective, terms_of
from featviz.objectives.reduction import weights_of
from featviz.objectives.scene import Scene, Score, Target
from featviz.objectives.units import Channel, Neuron
from featviz.types import Tensor

#: Where in a layer, counted row by row, units respond: scene, channels, samples, largest or not.
_Find: TypeAlias = Callable[[Scene, Tensor, Tensor, bool], Tensor]


class Readout:
    """The values of ``objectives``, (B, units), for images (B, C, *size) of the model's own size.

    Those of the same kind, layer and reduction (``Objective.kin``) are computed together; all
    layers come from one forward pass, which ends at the deepest of them.

    Raises
    ------
    FeatvizError
        If there is no objective, one does not fit the network, or one depends on the batch.
    """

    def __init__(self, model: Model, objectives: Sequence[Objective]) -> None:
        if not objectives:
            raise FeatvizError("give at least one objective")
        for goal in objectives:
            if goal.relational or goal.sliced(slice(0, 1)) != goal:
                raise FeatvizError(f"{goal} is about a batch: examples are of single images")
        self.model, self.objectives = model, list(objectives)
        self.table: LayerTable = model.layers()
        self._bound: dict[int, list[tuple[Tensor, Score]]] = {}
        groups: dict[object, list[int]] = {}
        for index, goal in enumerate(self.objectives):
            groups.setdefault(index if goal.kin is None else goal.kin, []).append(index)
        self._groups = list(groups.values())
        target = self._target(1)
        self.needs = tuple(sorted({name for o in objectives for name in o.needs(target)}))
        self._bind(1)
        self._places(target)

    def _target(self, batch: int) -> Target:
        return Target(self.model, self.model.size, batch)

    def _bind(self, batch: int) -> list[tuple[Tensor, Score]]:
        if batch not in self._bound:
            target = self._target(batch)
            self._bound[batch] = [
                (torch.tensor(group), _score([self.objectives[i] for i in group], target))
                for group in self._groups
            ]
        return self._bound[batch]

    def _places(self, target: Target) -> None:
        """Find out which objectives are a unit's, in which layer, and how its place is found."""
        count = len(self.objectives)
        #: The layer on whose map each objective responds, or None where it has no single place.
        self.layers: list[str | None] = [None] * count
        self._sign = torch.ones(count)
        self._channel = torch.zeros(count, dtype=torch.int64)
        self._finder = torch.full((count,), -1)
        self._find: list[_Find] = []
        finders: dict[object, int] = {}
        for index, goal in enumerate(self.objectives):
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

    def __call__(self, images: Tensor) -> tuple[Scene, Tensor]:
        """Return what the network made of images on its device, and the values on the CPU."""
        bound = self._bind(len(images))
        found = self.model.capture(images, self.needs, self.table)
        low = (torch.float16, torch.bfloat16)
        with torch.autocast(images.device.type, enabled=False):
            scene = Scene(images, {n: a.float() if a.dtype in low else a for n, a in found.items()})
            values = [(group, score(scene).detach().cpu()) for group, score in bound]
        kind = max((v.dtype for _, v in values), key=lambda d: torch.finfo(d).bits)
        table = torch.empty(len(images), len(self.objectives), dtype=kind)
        for group, part in values:
            table[:, group] = part.to(kind)
        return scene, table

    def places(self, scene: Scene, units: Tensor, samples: Tensor, largest: bool) -> Tensor:
        """Return where units respond most (or least) to samples of a scene, (m,).

        Counted row by row over the positions of the unit's layer; -1 where it has no place.
        """
        found = torch.full((len(units),), -1)
        if not len(units):
            return found
        finder, rising = self._finder[units], (self._sign[units] > 0) == largest
        for number in finder.unique().tolist():
            for top in (True, False):
                here = torch.nonzero((finder == number) & (rising == top))[:, 0]
                if number >= 0 and len(here):
                    channels = self._channel[units[here]]
                    found[here] = self._find[number](scene, channels, samples[here], top)
        return found


def _score(members: list[Objective], target: Target) -> Score:
    first = members[0]
    if len(members) > 1:
        return type(first).columns(members, target)
    bound = first.bind(target)
    return lambda scene: bound(scene)[:, None]


def _finder(unit: Any, target: Target) -> _Find:
    info = target.layer(unit.layer)
    if isinstance(unit, Neuron):
        fixed = 0
        for here, side in zip(unit.place(target)[1:], info.positions, strict=True):
            fixed = fixed * side + here
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
