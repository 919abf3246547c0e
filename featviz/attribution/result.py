"""The result of an attribution: which pixels an objective depends on, drawn and measured."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import torch
from PIL import Image

from featviz.attribution.curves import Curves, measure
from featviz.errors import FeatvizError
from featviz.io import sheets
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.optim.base_result import BaseResult, finite, row_of
from featviz.types import Tensor

#: Colours of the strongest negative and positive attribution; zero is white.
_NEGATIVE, _POSITIVE = (0.13, 0.37, 0.71), (0.79, 0.10, 0.13)
_LUMINANCE = (0.2126, 0.7152, 0.0722)
#: How much of the gray image remains visible under the strongest heat, and its contrast.
_VISIBLE, _CONTRAST = 0.25, 0.75


#: Percentile of the absolute values at which the colours of a heat map saturate.
PERCENTILE = 99.0


@dataclasses.dataclass(repr=False)
class Attribution(BaseResult):
    """Images and the attribution of an objective to their pixels; one row for each image.

    Attributes
    ----------
    images
        (B, C, *size) in [0, 1], as the network saw them.
    attributions
        (B, C or 1, *size): the method's values, in the units of the objective, signed if the method
        is; of a mask, how much of the image it keeps or deletes, 0 to 1.
    heat
        (B, *size): :attr:`pixels` divided by the 99th percentile of their absolute values and
        clipped to [-1, 1] for signed methods, to [0, 1] for others.
    scores
        (B,): the objective's value on each image.
    baseline_scores
        (B,): its value on each baseline; None for methods without one.
    delta
        (B,): the convergence delta of integrated gradients, the sum of the attributions minus
        (score - baseline score); None for methods that do not guarantee completeness.
    objectives, seeds
        The text of each image's objective, and its seed.
    method, reduction
        The method's name, and how channels become one value per pixel: ``sum`` or ``max``.
    settings
        The settings of the run.
    failures
        Why a mask could not be found, by image index; its attributions are 0.
    interrupted
        Whether Ctrl-C ended the run early; there are then fewer images, or unfinished masks.
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
        """Return the attribution of one image."""
        i = row_of(index, len(self))
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
        """The attributions reduced over the channels, (B, *size), unscaled and unclipped."""
        values = self.attributions.float()
        return values.amax(1) if self.reduction == "max" else values.sum(1)

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
        """Draw a row for each image: the image, the heat map, and the heat map over the image.

        Red is for the objective, blue against it, white neither.

        Raises
        ------
        FeatvizError
            If the images are neither gray nor RGB.
        """
        if self.images.ndim != 4 or self.images.shape[1] not in (1, 3):
            raise FeatvizError(
                f"cannot draw images of shape {tuple(self.images.shape[1:])}: only gray and RGB "
                "images can be drawn; result.heat has the values"
            )
        images = self.images.expand(-1, 3, -1, -1)
        rows = torch.stack([images, colours(self.heat), overlay(images, self.heat)], 1)
        labels = []
        for text, score in zip(self.objectives, self.scores.tolist(), strict=True):
            method = (self.method or "heat").replace("_", " ")
            labels += ["image", method, f"{text}: {score:.4g}"]
        return sheets.sheet(rows.flatten(0, 1), labels, columns=columns or 3)


def normalized(values: Tensor, percentile: float, *, signed: bool) -> Tensor:
    """Divide maps (B, *size) by a percentile of their absolute values and clip them.

    If that percentile is zero, as in a map of a few pixels, divide by the maximum.
    """
    flat = values.flatten(1).abs()
    rank = max(1, math.ceil(flat.shape[1] * percentile / 100))
    scale = flat.kthvalue(rank, dim=1).values
    scale = torch.where(scale > 0, scale, flat.amax(1))
    scale = torch.where(scale > 0, scale, 1).view(-1, *(1,) * (values.ndim - 1))
    return (values / scale).clamp(-1 if signed else 0, 1)


def colours(heat: Tensor) -> Tensor:
    """Return heat (B, H, W) in [-1, 1] as images (B, 3, H, W), white at 0."""
    return torch.ones(1, 3, 1, 1).lerp(_strongest_colour(heat), heat.abs()[:, None].clamp(0, 1))


def overlay(photos: Tensor, heat: Tensor) -> Tensor:
    """Return images (B, 3, H, W) in pale gray, tinted by the colours of the heat."""
    weights = torch.tensor(_LUMINANCE).view(1, 3, 1, 1)
    gray = (photos * weights).sum(1, keepdim=True) * _CONTRAST + (1 - _CONTRAST)
    strength = heat.abs()[:, None].clamp(0, 1) * (1 - _VISIBLE)
    return gray.expand_as(photos).lerp(_strongest_colour(heat), strength)


def _strongest_colour(heat: Tensor) -> Tensor:
    negative, positive = (
        torch.tensor(colour).view(1, 3, 1, 1) for colour in (_NEGATIVE, _POSITIVE)
    )
    return torch.where(heat[:, None] < 0, negative, positive)
