"""The objective of a dream: given, matched to a guide, or a layer at two thirds of the depth."""

from __future__ import annotations

import numpy as np
import torch

from featviz.errors import FeatvizError
from featviz.io.inputs import read_image
from featviz.networks.model import Model
from featviz.objectives import Objective, guide_match, layer
from featviz.objectives import objective as as_objective
from featviz.objectives.reference import Picture


def dream_objective(
    model: Model, objective: Objective | str | None, guide: Picture | None
) -> Objective:
    """Return the objective of a dream: the given one, a layer's energy, or a guide match."""
    goal = layer(default_layer(model)) if objective is None else as_objective(objective)
    if guide is None:
        return goal
    if len(goal.layers) != 1:
        raise FeatvizError(
            f"a guide needs an objective with one layer, such as layer:NAME, not {goal}"
        )
    if isinstance(guide, (np.ndarray, torch.Tensor)):
        read_image(guide, model.channels, "guide")  # refuses another range than [0, 1]
        if "float" not in str(guide.dtype):
            raise FeatvizError(f"guide must be floats in [0, 1], not {guide.dtype}: divide by 255")
    return guide_match(goal.layers[0], guide)


def default_layer(model: Model) -> str:
    """Return the layer at two thirds of the depth, or the block that contains it.

    Of a transformer, which has more layers of tokens than maps, it is a layer of tokens.

    Raises
    ------
    FeatvizError
        If the network has no layer with spatial positions.
    """
    table = model.layers()
    axes = len(model.size)
    names = [info.name for info in table if info.is_map(axes)]
    tokens = [info.name for info in table if info.is_tokens(axes)] if axes > 1 else []
    if len(tokens) > len(names):
        names = tokens
    if len(names) < 2:  # the input is one; where positions lead nowhere, shapes have to do
        names = [info.name for info in table if info.batched and len(info.positions) == axes]
    if not names:
        raise FeatvizError(
            "the network has no layer with spatial positions: give the objective to dream of"
        )
    path = names[len(names) * 2 // 3].split(".")
    ancestors = [".".join(path[: k + 1]) for k in range(len(path))]
    # Not a block that contains almost the whole network.
    candidates = names[: len(names) * 4 // 5 + 1]
    return next(name for name in ancestors if name in candidates)
