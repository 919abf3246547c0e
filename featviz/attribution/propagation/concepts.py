"""Which units relevance flows through: concept-conditional relevance."""

from __future__ import annotations

from typing import Any

import torch

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives.base import Objective, terms_of
from featviz.objectives.scene import Target
from featviz.objectives.units import Channel, Neuron
from featviz.types import Tensor


def chosen_units(through: Objective, option: str = "through") -> list[Channel | Neuron]:
    """Return the units that ``through`` names: a channel or neuron, or a sum of them.

    ``option`` is what an error calls it.

    Raises
    ------
    FeatvizError
        If it names something else, or units of several layers.
    """
    terms = terms_of(through)
    units = [o for c, o in terms if c == 1 and isinstance(o, (Channel, Neuron)) and whole_unit(o)]
    if len(units) < len(terms) or len({unit.layer for unit in units}) != 1:
        raise FeatvizError(
            f"{option} takes channels and neurons of one layer, and sums of them, not {through}"
        )
    return units


def whole_unit(unit: Channel | Neuron) -> bool:
    """Return whether a unit is named as it is, without a reduction or positions of its own."""
    return isinstance(unit, Neuron) or (unit.reduce == "mean" and not unit.where)


def unit_mask(
    model: Model, size: tuple[int, ...], units: list[Channel | Neuron], shape: tuple[int, ...]
) -> Tensor:
    """Return 1 at the chosen units of an activation of ``shape``, batch included, 0 elsewhere."""
    target = Target(model, size, 1)
    info = target.layer(units[0].layer)
    mask = torch.zeros(shape, device=model.device)
    by_unit = mask.movedim(info.axis, 1)
    for unit in units:
        unit.bind(target)  # raises for a unit that does not exist
        if isinstance(unit, Channel):
            by_unit[:, unit.channel] = 1
        else:
            place: Any = (slice(None), *unit.place(target))
            by_unit[place] = 1
    return mask
