"""What to explain of each image: the given objective, or the predicted class."""

from __future__ import annotations

from collections.abc import Sequence

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives import Objective, class_logit
from featviz.objectives import objective as as_objective
from featviz.objectives.group import PerSample
from featviz.optim.collecting import logits_layer, predicted_classes
from featviz.types import Tensor


def predicted_logits(model: Model, images: Tensor, batch_size: int | None) -> list[Objective]:
    """Return the logit of the predicted class of each image (B, C, *size), as its objective.

    Raises
    ------
    FeatvizError
        If the network has no class logits.
    """
    layer = logits_layer(model, tuple(images.shape[2:]))
    if layer is None:
        model.layers(tuple(images.shape[2:])).find(model.logits)  # says which of several outputs
        raise FeatvizError("the network has no class logits: give an objective to explain")
    classes = predicted_classes(model, images, layer, batch_size=batch_size)
    return [class_logit(int(c)) for c in classes]


def goals_of(objective: Objective | str | Sequence[Objective | str], count: int) -> list[Objective]:
    """Return one objective for each image.

    Raises
    ------
    FeatvizError
        If their numbers differ, or an objective depends on a whole batch.
    """
    goal = as_objective(objective)
    goals = list(goal.parts) if isinstance(goal, PerSample) else [goal] * count
    if count not in (1, len(goals)):
        raise FeatvizError(f"{len(goals)} objectives for {count} images")
    for goal in goals:
        if goal.relational:
            raise FeatvizError(
                f"attribution takes objectives of single images, not {goal}: "
                "its value depends on the other images of the batch"
            )
    return goals
