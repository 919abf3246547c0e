"""An objective of single images as a plain function of images, for whatever takes one."""

from __future__ import annotations

import torch

from featviz.errors import FeatvizError
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.objectives.scene import Scene, Score, Target
from featviz.types import Precision, Tensor


class Forward:
    """Computes the value (B,) of images (B, C, *size) by the truncated pass, differentiable.

    To be called within ``model.session()``. Raises :class:`FeatvizError` at once where the
    objective does not fit the network, and when it is called where a gradient is asked for and
    there is none.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        size: tuple[int, ...],
        precision: Precision = "fp32",
    ) -> None:
        if objective.relational:
            raise FeatvizError(
                f"attribution takes objectives of single images, not {objective}: "
                "its value depends on the other images of the batch"
            )
        self.model, self.objective, self.size = model, objective, size
        self.low = devices.half(precision)
        #: By how much gradients are larger inside of the network than by the images.
        self.scale = devices.gradient_scale(precision)
        self.table = model.layers(size)
        self.needs = objective.needs(Target(model, size, 1))
        self._bound: dict[int, Score] = {}
        self._score(1)

    def _score(self, batch: int) -> Score:
        if batch not in self._bound:
            self._bound[batch] = self.objective.bind(Target(self.model, self.size, batch))
        return self._bound[batch]

    def __call__(self, images: Tensor) -> Tensor:
        kind = images.device.type
        climbs = images.requires_grad and torch.is_grad_enabled()
        if climbs and self.scale != 1:
            images = images.view_as(images)  # the hook goes with this pass
            images.register_hook(lambda gradient: gradient / self.scale)
        with torch.autocast(kind, self.low, enabled=self.low is not None):
            found = self.model.capture(images, self.needs, self.table)
        scene = Scene(images, {name: a.float() for name, a in found.items()})
        scores = self._score(len(images))(scene)
        if climbs and not scores.requires_grad:
            raise FeatvizError(
                f"objective {self.objective} has no gradient by the image: the network detaches "
                "it, or does not read it; occlusion, feature_ablation and kernel_shap need none"
            )
        if climbs and self.scale != 1:
            scores.register_hook(lambda gradient: gradient * self.scale)
        return scores

    def values(self, images: Tensor, together: int) -> Tensor:
        """Return the values (B,) without a gradient, so many images at a time."""
        with torch.no_grad():
            return torch.cat([self(part) for part in images.split(together)])
