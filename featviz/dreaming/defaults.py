"""What a dream enhances where nobody says: a layer at two thirds of the depth, or a guide."""

from __future__ import annotations

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives import Objective, guide_match, layer
from featviz.objectives import objective as as_objective
from featviz.objectives.reference import Picture


def dream_objective(
    model: Model, objective: Objective | str | None, guide: Picture | None
) -> Objective:
    """Return what to dream of: the objective, a layer's energy, or a match with the guide."""
    goal = layer(default_layer(model)) if objective is None else as_objective(objective)
    if guide is None:
        return goal
    if len(goal.layers) != 1:
        raise FeatvizError(
            f"a guide needs an objective of one layer, such as layer:NAME, not {goal}"
        )
    return guide_match(goal.layers[0], guide)


def default_layer(model: Model) -> str:
    """Return the layer at two thirds of the depth: the block in which that map lies.

    Raises
    ------
    FeatvizError
        If the network has no layer with positions.
    """
    table = model.layers()
    names = [info.name for info in table if len(info.positions) == len(model.size)]
    if not names:
        raise FeatvizError(
            "the network has no layer with positions: say which objective to dream of"
        )
    words = names[len(names) * 2 // 3].split(".")
    around = [".".join(words[: k + 1]) for k in range(len(words))]
    early = names[: len(names) * 4 // 5 + 1]  # a block around nearly everything is none
    return next(name for name in around if name in early)
