"""What to explain where no objective is given: the predicted class."""

from __future__ import annotations

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives import Objective, class_logit
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
        raise FeatvizError("the network has no class logits: give an objective to explain")
    classes = predicted_classes(model, images, layer, batch_size=batch_size)
    return [class_logit(int(c)) for c in classes]
