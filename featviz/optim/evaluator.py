"""The value of an objective for images: one number each, with or without gradients, in batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.objectives.scene import Score, Target
from featviz.optim.batching import evaluated_together, in_batches
from featviz.optim.forward import ForwardPass
from featviz.optim.tracing import PAYS, TraceCache
from featviz.types import Precision, Tensor


class Evaluator:
    """Computes an objective's value (B,) for images (B, C, *size).

    ``evaluator(images)`` is differentiable in the images; ``evaluator.scores(images)`` goes through
    any number of them in batches, without gradients.

    Parameters
    ----------
    model
        On the device where the values are computed.
    objective
        For ``scores``, a :func:`featviz.per_sample` has one objective for each of the images.
    size
        The images' size.
    channels
        The images' number of channels where it is not the network's: an opacity is one more.
    batch_size
        Images that go through the network together in ``scores``; 4 on a CPU, 32 elsewhere.
    expected
        How many images are to be evaluated: from :data:`featviz.optim.tracing.PAYS` on, whole
        batches run traced.
    traces
        Shares traced passes with other evaluators of the same network and precision.

    Raises
    ------
    FeatvizError
        At once, if the objective does not fit the network.
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
        #: By how much gradients are larger inside of the network than by the images.
        self.gradient_scale = devices.gradient_scale(precision)
        self._bound: dict[int, tuple[tuple[str, ...], Score]] = {}
        one = objective.sliced(slice(0, 1))
        self.needs = one.needs(self._target(1))
        if not one.relational:
            one.bind(self._target(1))

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

        Gradients of half precision are scaled inside of the network, and unscaled for the images.

        Raises
        ------
        FeatvizError
            If a gradient is asked for and there is none.
        """
        differentiated = images.requires_grad and torch.is_grad_enabled()
        scale = self.gradient_scale
        if differentiated and scale != 1:
            images = images.view_as(images)  # the hook belongs to this pass
            images.register_hook(lambda gradient: gradient / scale)
        needs, score = self._bind(len(images))
        scene = self.forward.scene(images, needs)
        with torch.autocast(images.device.type, enabled=False):
            values = score(scene)
        if differentiated and not values.requires_grad:
            raise FeatvizError(
                f"objective {self.objective} has no gradient by the image: the network detaches "
                "it, or does not read it; occlusion, feature_ablation and kernel_shap need none"
            )
        if differentiated and scale != 1:
            values.register_hook(lambda gradient: gradient * scale)
        return values

    def scores(self, images: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the values (B,) of any number of images, on the CPU in float32.

        ``seen`` is what the network sees of the images where that is something else.
        """
        pairs = images if seen is None else seen

        def run(here: slice) -> Tensor:
            goal = self.objective.sliced(here)
            shown = pairs[here].to(self.model.device)
            clean = shown if seen is None else images[here].to(self.model.device)
            if goal is self.objective:
                needs, score = self._bind(len(shown))
            else:
                target = self._target(len(shown))
                needs, score = goal.needs(target), goal.bind(target)
            scene = self.forward.scene(shown, needs, images=clean)
            with torch.autocast(shown.device.type, enabled=False):
                return score(scene).float().cpu()

        together = len(images) if self.objective.relational else self.batch_size
        with self.model.session(), torch.no_grad():
            parts = list(in_batches(len(images), together, self.size, run))
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

    ``objectives`` is one for all images, or one for each: then every image is evaluated by itself.
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
