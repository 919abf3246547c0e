"""FIDO: how probably each part of an image has to be seen, the rest infilled."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TypeAlias

import torch

from featviz.attribution.baselines import grid
from featviz.attribution.masks import FoundMasks, MaskProblem
from featviz.errors import FeatvizError
from featviz.objectives import Objective, channel
from featviz.transforms import Backdrop
from featviz.transforms.base import Apply
from featviz.transforms.random_fields import normal_fields
from featviz.types import Tensor

#: Returns images (B, C, *size) in [0, 1] with their hidden parts made up, given the images and how
#: visible each pixel is, (B, 1, *size) from 0 (hidden) to 1. A generator; gradients are optional.
Infill: TypeAlias = Callable[[Tensor, Tensor], Tensor]
#: Of the relaxed samples. The paper's 0.1 leaves a gradient at few positions in a step.
_TEMPERATURE = 0.3
#: Probabilities are kept this far from 0 and 1 while they are sampled.
_MARGIN = 0.02
#: Samples per step, and the weight of the mean probability of being shown (or hidden).
_SAMPLES, _MEAN_WEIGHT = 4, 0.5


@dataclasses.dataclass(frozen=True)
class SampledBackdrop(Backdrop):
    """Show each cell with the probability that its opacity says, over ``images`` or an ``infill``.

    A cell's visibility is a relaxed Bernoulli variable, drawn anew at each step; takes
    (B, C + 1, *size) and returns (B, C, *size).
    """

    cells: int = 28
    infill: Infill | None = dataclasses.field(default=None, compare=False, repr=False)

    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        return torch.rand(steps, 1, generator=generator, dtype=torch.float64)

    def prepare(self, tape: Tensor) -> Apply:
        def apply(images: Tensor, step: int) -> Tensor:
            colours, probability = images[:, :-1], images[:, -1:]
            labels = grid(tuple(images.shape[2:]), self.cells).to(images.device)
            noise = normal_fields(tape[step, :, 0], (int(labels.max()) + 1,), images)
            uniform = torch.special.ndtr(noise).clamp(1e-6, 1 - 1e-6)[:, None][..., labels]
            logits = probability.clamp(_MARGIN, 1 - _MARGIN).logit() + uniform.logit()
            visible = torch.sigmoid(logits / _TEMPERATURE)
            if self.infill is None:
                behind = self.images.to(colours)
            else:
                behind = infilled(self.infill, colours, visible)
            return behind.lerp(colours, visible)

        return apply


def fido(masks: MaskProblem) -> FoundMasks:
    """Return with what probability each part has to be seen, or hidden. [Chang2019]_.

    Each cell of the mask is seen with a probability of its own, and infilled otherwise: by the
    baseline, or by what ``infill`` makes up for the hidden parts, so that what is hidden looks
    plausible rather than blurred. ``preserve`` is the paper's smallest sufficient region,
    ``delete`` its smallest deletion region. The expectation over masks is taken with relaxed
    samples.

    Raises
    ------
    FeatvizError
        As :meth:`MaskProblem.optimize`; if ``infill`` does not return images of the same shape.
    """
    delete = masks.options["kind"] == "delete"

    def costs(opacity: int) -> Objective:
        shown = channel("image", opacity)
        return _MEAN_WEIGHT * (1 - shown) if delete else _MEAN_WEIGHT * shown

    return masks.optimize(
        costs,
        spread=0.0,
        rate=0.05,
        start=0.5,
        samples=_SAMPLES,
        backdrop=lambda baselines: SampledBackdrop(
            baselines, masks.options["cells"], masks.options["infill"]
        ),
    )


def infilled(infill: Infill, images: Tensor, visible: Tensor) -> Tensor:
    """Return what a user's function makes of partly hidden images, checked."""
    made = infill(images, visible)
    if not isinstance(made, torch.Tensor) or made.shape != images.shape:
        shape = tuple(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__
        raise FeatvizError(
            f"infill must return images of shape {tuple(images.shape)}, not {shape}: it takes "
            "images (B, C, *size) and visibility (B, 1, *size)"
        )
    low, high = (float(v) for v in made.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise FeatvizError("infill returned values that are not finite")
    return made.to(images).clamp(0, 1)
