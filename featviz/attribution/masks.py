"""Mask-based attribution: the ascent loop optimizes which part of an image is shown.

A mask is the opacity of an image that lies over its baseline (:class:`featviz.param.Mask`). The
loss is the squared distance of the objective from its value on the whole image (or, to delete it,
on the baseline), in units of their difference, plus the penalties of the mask. The papers maximize
(or minimize) the objective itself, which can far exceed its value on the image; the mask then shows
how to exaggerate the objective rather than what the image contains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives import Objective, area, channel, per_sample, ramp, total_variation
from featviz.optim.callbacks import Callback, Step
from featviz.optim.loop import optimize
from featviz.optim.optimizers import adam
from featviz.param import Mask
from featviz.transforms import Backdrop
from featviz.types import Precision, Tensor

KINDS = ("preserve", "delete")
#: Masks (B, 1, *size), why masks could not be found, by image index, and whether Ctrl-C came.
FoundMasks: TypeAlias = tuple[Tensor, dict[int, str], bool]
#: Weight of the area penalty at the last step, for an objective scaled to a range of 1.
_AREA_WEIGHT = 300.0
#: Weights of the mean of what is shown (or deleted), and of its total variation divided by the
#: longer side of the image in pixels.
_MEAN_WEIGHT, _VARIATION_WEIGHT = 0.5, 0.05
#: The areas of extremal perturbations by default.
AREAS = (0.05, 0.1, 0.2, 0.4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskProblem:
    """Images (B, C, *size), their objectives, and the settings of the optimization.

    ``scores`` and ``baseline_scores`` (B,) are the objectives' values on images and baselines.
    """

    model: Model
    images: Tensor
    baselines: Tensor
    goals: Sequence[Objective]
    scores: Tensor
    baseline_scores: Tensor
    seeds: Sequence[int]
    options: dict[str, Any]
    precision: Precision
    micro: int | None
    callbacks: Sequence[Callback | Callable[[Step], Any]]

    @property
    def drops(self) -> Tensor:
        """How much higher each objective is on its image than on the baseline, (B,)."""
        return (self.scores - self.baseline_scores).double()

    def optimize(
        self,
        costs: Callable[[int], Objective],
        *,
        spread: float,
        rate: float,
        start: float = 1.0,
        samples: int = 1,
        steps: int | None = None,
        backdrop: Callable[[Tensor], Backdrop] = Backdrop,
    ) -> FoundMasks:
        """Return the masks (B, 1, *size) of what is preserved or deleted, and how the run ended.

        ``costs`` returns the penalties, given the index of the opacity channel. At first a part
        ``start`` of the image is preserved, or of the deletion open. ``backdrop`` lays images on
        the baselines, with ``samples`` random draws per step; ``steps`` are by default those of the
        options. An image that does not score above its baseline gets a mask of zeros and is listed
        among the failures.

        Raises
        ------
        FeatvizError
            If no image scores above its baseline.
        """
        failures = {
            i: f"objective {self.goals[i]} is not higher on image {i} than on the baseline: there "
            "is nothing to attribute; use another baseline, or its negative"
            for i in (~(self.drops > 0)).nonzero().flatten().tolist()
        }
        indices = [i for i in range(len(self.images)) if i not in failures]
        if not indices:
            raise FeatvizError(failures[0])
        device = self.model.device
        images, baselines = self.images[indices].to(device), self.baselines[indices].to(device)
        delete = self.options["kind"] == "delete"
        opacity = self.images.shape[1]
        targets = self.baseline_scores if delete else self.scores
        objectives = []
        for i in indices:
            distance = (self.goals[i] - float(targets[i])) / float(self.drops[i])
            objectives.append(-(distance * distance) - costs(opacity))
        result = optimize(
            self.model,
            objectives[0] if len(objectives) == 1 else per_sample(objectives),
            param=Mask(
                images=images,
                background=baselines,
                cells=self.options["cells"],
                spread=spread,
                start=1 - start if delete else start,
                hides=delete,
            ),
            transforms=(backdrop(baselines),),
            samples=samples,
            steps=steps or self.options["steps"],
            seeds=[self.seeds[i] for i in indices],
            optimizer=adam(rate),
            schedule=lambda progress: 1 - 0.9 * progress,
            redirect=0,
            importance=False,
            precision=self.precision,
            micro=self.micro,
            callbacks=self.callbacks,
        )
        mask = result.images[:, opacity:].clamp(0, 1)
        masks = torch.zeros(len(self.images), *mask.shape[1:])
        masks[indices] = 1 - mask if delete else mask
        failures |= {indices[i]: why for i, why in result.failures.items()}
        return masks, dict(sorted(failures.items())), result.interrupted


def extremal_perturbation(masks: MaskProblem) -> FoundMasks:
    """Return the mean of the masks of given areas that delete, or preserve, best. [Fong2019]_.

    The weight of the area penalty grows over the steps, which makes a mask binary. ``steps`` are
    shared among the areas. Masks start half open. The paper starts at the whole image (or at the
    baseline), where the objective hardly depends on any one part: the gradient is noise there, and
    the masks stayed where it put them.

    A mask of one area leaves the order within it, and outside, open; the mean over several ranks
    the image, as the paper's sum for the pointing game does.
    """
    areas = masks.options["area"]
    delete = masks.options["kind"] == "delete"
    steps = max(1, masks.options["steps"] // len(areas))
    total: Tensor | None = None
    failures: dict[int, str] = {}
    done = 0
    for fraction in areas:

        def costs(opacity: int, fraction: float = fraction) -> Objective:
            target = area(1 - fraction if delete else fraction, channel=opacity)
            return ramp(0, _AREA_WEIGHT) * target

        found, why, interrupted = masks.optimize(
            costs, spread=2.6, rate=0.05, start=0.5, steps=steps
        )
        total = found if total is None else total + found
        failures |= why
        done += 1
        if interrupted:
            break
    assert total is not None
    return total / done, dict(sorted(failures.items())), interrupted


def meaningful_perturbation(masks: MaskProblem) -> FoundMasks:
    """Return the smooth mask that deletes the objective, or preserves it, with little. [Fong2017]_.

    The penalties are the mean of what is deleted (or kept) and the mask's total variation.
    """
    longer = max(masks.images.shape[2:])
    delete = masks.options["kind"] == "delete"

    def costs(opacity: int) -> Objective:
        shown = channel("image", opacity)
        mean_cost = _MEAN_WEIGHT * (1 - shown) if delete else _MEAN_WEIGHT * shown
        return mean_cost + _VARIATION_WEIGHT / longer * total_variation()

    return masks.optimize(costs, spread=1.0, rate=0.05)
