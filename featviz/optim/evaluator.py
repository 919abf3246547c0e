"""Evaluate an objective for images, with gradients or, in batches, without."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.networks import devices
from featviz.networks.differentiability import why_no_gradient
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.objectives.scene import Score, Target
from featviz.optim.batching import evaluated_together, in_batches
from featviz.optim.forward import ForwardPass
from featviz.optim.tracing import PAYS, TraceCache
from featviz.types import Precision, Tensor


class Evaluator:
    """Computes an objective's value (B,) for images (B, C, *size).

    ``evaluator(images)`` is differentiable with respect to the images; ``evaluator.scores(images)``
    processes any number of them in batches, without gradients.

    Parameters
    ----------
    model
        The network, on the device to compute on.
    objective
        The objective; for ``scores``, a :func:`featviz.per_sample` has one for each image.
    size
        Spatial size of the images.
    channels
        Number of channels of the images if it differs from the network's, e.g. with an opacity
        channel.
    batch_size
        Images per forward pass in ``scores``; 4 on a CPU, 32 elsewhere.
    expected
        Expected number of images; from :data:`featviz.optim.tracing.PAYS` on, full batches run
        traced.
    traces
        Shares traced passes with other evaluators of the same network and precision.

    Raises
    ------
    FeatvizError
        Immediately, if the objective does not fit the network.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        size: tuple[int, ...],
        *,
        channels: int | None = None,
        precision: Precision = "fp32",
        batch_size: int | None = None,
        expected: int = 1,
        traces: TraceCache | None = None,
    ) -> None:
        self.model, self.objective, self.size, self.channels = model, objective, size, channels
        self.batch_size = evaluated_together(model.device, batch_size)
        self.forward = ForwardPass(
            model,
            size,
            precision=precision,
            traced=expected >= PAYS or traces is not None,
            traced_batch=self.batch_size,
            traces=traces,
        )
        #: Factor by which gradients are scaled inside the network.
        self.gradient_scale = devices.gradient_scale(precision)
        self._bound: dict[int, tuple[tuple[str, ...], Score]] = {}
        single = objective.sliced(slice(0, 1))
        self.needs = single.needs(self._target(1))
        if not single.relational:
            single.bind(self._target(1))

    def _target(self, batch: int) -> Target:
        return Target(self.model, self.size, batch, self.channels)

    def _bind(self, batch: int) -> tuple[tuple[str, ...], Score]:
        if batch not in self._bound:
            target = self._target(batch)
            needs = tuple(sorted(self.objective.needs(target)))
            self._bound[batch] = needs, self.objective.bind(target)
        return self._bound[batch]

    def __call__(self, images: Tensor) -> Tensor:
        """Return the values (B,) of images on the model's device, within ``model.session()``.

        With fp16, gradients are scaled inside the network and unscaled for the images.

        Raises
        ------
        FeatvizError
            If a gradient is requested but the objective has none.
        """
        differentiated = images.requires_grad and torch.is_grad_enabled()
        scale = self.gradient_scale
        if differentiated and scale != 1:
            images = images.view_as(images)  # so that the hook belongs to this pass only
            images.register_hook(lambda gradient: gradient / scale)
        needs, score = self._bind(len(images))
        scene = self.forward.scene(images, needs)
        with torch.autocast(images.device.type, enabled=False):
            values = score(scene)
        if differentiated and not values.requires_grad:
            raise FeatvizError(
                f"objective {self.objective} has no gradient with respect to the image: "
                f"{why_no_gradient(self.model.net)}; occlusion, feature_ablation and kernel_shap "
                "do without"
            )
        if differentiated and scale != 1:
            values.register_hook(lambda gradient: gradient * scale)
        return values

    def scores(self, images: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the values (B,) of any number of images, on the CPU in float32.

        ``seen`` holds the network's inputs if they differ from the clean images.
        """
        inputs = images if seen is None else seen

        def run(rows: slice) -> Tensor:
            objective = self.objective.sliced(rows)
            batch = inputs[rows].to(self.model.device)
            clean = batch if seen is None else images[rows].to(self.model.device)
            if objective is self.objective:
                needs, score = self._bind(len(batch))
            else:
                target = self._target(len(batch))
                needs, score = objective.needs(target), objective.bind(target)
            scene = self.forward.scene(batch, needs, images=clean)
            with torch.autocast(batch.device.type, enabled=False):
                return score(scene).float().cpu()

        batch_size = len(images) if self.objective.relational else self.batch_size
        with self.model.session(), torch.no_grad():
            parts = list(in_batches(len(images), batch_size, self.size, run))
        return torch.cat(parts) if parts else torch.zeros(0)


def scores(
    model: Model,
    objectives: Objective | Sequence[Objective],
    images: Tensor,
    *,
    precision: Precision = "fp32",
    batch_size: int | None = None,
    traces: TraceCache | None = None,
) -> Tensor:
    """Return the value (B,) of each image (B, C, *size), on the CPU, without gradients.

    ``objectives`` is one for all images, or one per image, each of which is evaluated by itself.
    """
    size = tuple(images.shape[2:])
    if isinstance(objectives, Objective):
        evaluator = Evaluator(
            model, objectives, size, precision=precision, batch_size=batch_size, traces=traces
        )
        return evaluator.scores(images)
    rows = [
        Evaluator(model, objective, size, precision=precision, traces=traces).scores(image)
        for objective, image in zip(objectives, images.split(1), strict=True)
    ]
    return torch.cat(rows)
