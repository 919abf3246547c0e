"""What an attribution returns: which pixels carry an objective, drawn and measured."""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import Any, Literal

import torch
from PIL import Image

from featviz.attribution.curves import Curves, measure
from featviz.errors import FeatvizError
from featviz.io import sheets
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.optim.base_result import BaseResult, finite
from featviz.types import Tensor

#: What stands for most against and most for the objective; nothing is white.
_AGAINST, _FOR = (0.13, 0.37, 0.71), (0.79, 0.10, 0.13)
_LUMINANCE = (0.2126, 0.7152, 0.0722)
#: How much of the gray photograph is left where the heat is strongest, and of its contrast.
_LEFT, _PALE = 0.25, 0.75


@dataclasses.dataclass
class Attribution(BaseResult):
    """Images and what in them carries an objective; one row for each.

    Attributes
    ----------
    images
        (B, C, *size) in [0, 1], as the network saw them.
    attributions
        (B, C or 1, *size): what the method computes, in the units of the objective, with a sign
        where the method has one; of a mask, how much of the image it keeps or deletes, 0 to 1.
    heat
        (B, *size): :attr:`pixels` divided by the 99th percentile of their absolute values, and
        clipped: in [-1, 1] for methods with a sign and [0, 1] for others.
    scores
        (B,): the objective's value on each picture.
    baseline_scores
        (B,): its value on each baseline; None where the method has none.
    delta
        (B,): the sum of the attributions less (score - baseline score), which is what integrated
        gradients leave out; None for methods that do not promise it.
    objectives, seeds
        The text of each image's objective, and its seed.
    method, reduction
        The method's name, and how the channels become one value of a pixel: ``sum`` or ``max``.
    settings
        What was asked for.
    failures
        Why a mask could not be found, by its index; its attributions are 0.
    interrupted
        Whether Ctrl-C ended the run early; then there are fewer images or unfinished masks.
    """

    images: Tensor
    attributions: Tensor
    heat: Tensor
    scores: Tensor
    objectives: list[str]
    seeds: list[int]
    baseline_scores: Tensor | None = None
    delta: Tensor | None = None
    method: str = ""
    reduction: Literal["sum", "max"] = "sum"
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    failures: dict[int, str] = dataclasses.field(default_factory=dict)
    interrupted: bool = False
    goals: list[Objective] = dataclasses.field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Attribution:
        """Return the attribution of one picture."""
        i = range(len(self))[operator.index(index)]
        here = slice(i, i + 1)
        return dataclasses.replace(
            self,
            images=self.images[here],
            attributions=self.attributions[here],
            heat=self.heat[here],
            scores=self.scores[here],
            objectives=self.objectives[here],
            seeds=self.seeds[here],
            baseline_scores=None if self.baseline_scores is None else self.baseline_scores[here],
            delta=None if self.delta is None else self.delta[here],
            failures={0: self.failures[i]} if i in self.failures else {},
            goals=self.goals[here],
        )

    @property
    def pixels(self) -> Tensor:
        """The attributions over the channels as they are, (B, *size): not divided, not clipped."""
        over = self.attributions.float()
        return over.amax(1) if self.reduction == "max" else over.sum(1)

    def curves(self, model: Model, **options: Any) -> Curves:
        """Return the deletion and insertion curves, and those of random orders.

        ``options`` are those of :func:`featviz.attribution.curves.measure`.
        """
        return measure(model, self.images, self.pixels, self.goals, self.seeds, **options)

    @property
    def record(self) -> dict[str, Any]:
        """The settings with objectives, seeds, scores and failures, for JSON and PNG."""
        keys = {"score": self.scores, "baseline_score": self.baseline_scores, "delta": self.delta}
        return {
            **self.settings,
            "objective": self.objectives,
            "seed": self.seeds,
            **{
                k: None if values is None else finite(values.tolist()) for k, values in keys.items()
            },
            "failure": [self.failures.get(i) for i in range(len(self))],
        }

    def sheet(self, *, columns: int | None = None) -> Image.Image:
        """Draw a row for each image: the photograph, the heat, the heat on the photograph.

        Red is for the objective, blue against it, white neither.

        Raises
        ------
        FeatvizError
            If the images are no gray or RGB pictures.
        """
        if self.images.ndim != 4 or self.images.shape[1] not in (1, 3):
            raise FeatvizError(
                f"cannot draw images of shape {tuple(self.images.shape[1:])}: it takes gray or RGB "
                "images; result.heat has the values"
            )
        photos = self.images.expand(-1, 3, -1, -1)
        rows = torch.stack([photos, colours(self.heat), overlay(photos, self.heat)], 1)
        labels = []
        for text, score in zip(self.objectives, self.scores.tolist(), strict=True):
            method = (self.method or "heat").replace("_", " ")
            labels += ["image", method, f"{text}: {score:.4g}"]
        return sheets.sheet(rows.flatten(0, 1), labels, columns=columns or 3)


def normalized(values: Tensor, percentile: float, *, signed: bool) -> Tensor:
    """Divide maps (B, *size) by a percentile of their absolute values and clip them.

    Where that is zero, as for a map of a few pixels, by the largest.
    """
    flat = values.flatten(1).abs()
    place = max(1, math.ceil(flat.shape[1] * percentile / 100))
    size = flat.kthvalue(place, dim=1).values
    size = torch.where(size > 0, size, flat.amax(1))
    size = torch.where(size > 0, size, 1).view(-1, *(1,) * (values.ndim - 1))
    return (values / size).clamp(-1 if signed else 0, 1)


def colours(heat: Tensor) -> Tensor:
    """Return heat (B, H, W) in [-1, 1] as images (B, 3, H, W), white where it is 0."""
    return torch.ones(1, 3, 1, 1).lerp(_ends(heat), heat.abs()[:, None].clamp(0, 1))


def overlay(photos: Tensor, heat: Tensor) -> Tensor:
    """Return photographs (B, 3, H, W) in pale gray with the colours of the heat on them."""
    weights = torch.tensor(_LUMINANCE).view(1, 3, 1, 1)
    gray = (photos * weights).sum(1, keepdim=True) * _PALE + (1 - _PALE)
    strength = heat.abs()[:, None].clamp(0, 1) * (1 - _LEFT)
    return gray.expand_as(photos).lerp(_ends(heat), strength)


def _ends(heat: Tensor) -> Tensor:
    against, favour = (torch.tensor(end).view(1, 3, 1, 1) for end in (_AGAINST, _FOR))
    return torch.where(heat[:, None] < 0, against, favour)
