"""Mask-based attribution: the ascent loop, on how much of a photograph is shown.

A mask is the opacity of an image whose colours are the photograph's and which lies on the
baseline (:class:`featviz.param.Mask`). What is kept small is the squared distance of the objective
from its value on the whole photograph (or, to delete it, on the baseline), in units of their
difference, and what the mask costs. The papers raise (or lower) the objective itself, which can go
far beyond its value on the photograph and then shows how to exaggerate and not what is there.
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
from featviz.types import Precision, Tensor

KINDS = ("preserve", "delete")
#: Masks (B, 1, *size), why some could not be found, by their index, and whether Ctrl-C ended it.
FoundMasks: TypeAlias = tuple[Tensor, dict[int, str], bool]
#: Weight of the area's template at the last step, where the objective's range is 1.
_AREA = 300.0
#: Weights of the mean of what is shown (or deleted), and of its total variation over the number
#: of values on the longer side of the picture.
_SIZE, _ROUGH = 0.5, 0.05
#: The first weight of the mean of what is shown (or deleted) where the area is given.
_FIRST = {"preserve": 1.0, "delete": 0.3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskProblem:
    """Photographs (B, C, *size), their objectives, and how the masks are found.

    ``scores`` and ``baseline_scores`` (B,) are the objectives' values on photographs and baselines.
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
        """By how much each objective is higher on the photograph than on the baseline, (B,)."""
        return (self.scores - self.baseline_scores).double()

    def optimize(
        self, costs: Callable[[int], Objective], *, spread: float, rate: float
    ) -> FoundMasks:
        """Return the masks (B, 1, *size), what is preserved or deleted, and how it went.

        ``costs`` makes what is subtracted, of the number of the opacity's channel. A photograph
        that is not above its baseline has a mask of zeros and is among the failures.

        Raises
        ------
        FeatvizError
            If none of them is above its baseline.
        """
        failures = {
            i: f"objective {self.goals[i]} is not higher on image {i} than on the baseline: there "
            "is nothing to find; take another baseline, or its negative"
            for i in (~(self.drops > 0)).nonzero().flatten().tolist()
        }
        rows = [i for i in range(len(self.images)) if i not in failures]
        if not rows:
            raise FeatvizError(failures[0])
        device = self.model.device
        images, baselines = self.images[rows].to(device), self.baselines[rows].to(device)
        delete = self.options["kind"] == "delete"
        opacity = self.images.shape[1]
        ends = self.baseline_scores if delete else self.scores
        parts = []
        for i in rows:
            away = (self.goals[i] - float(ends[i])) / float(self.drops[i])
            parts.append(-(away * away) - costs(opacity))
        made = optimize(
            self.model,
            parts[0] if len(parts) == 1 else per_sample(parts),
            param=Mask(
                images=images,
                background=baselines,
                cells=self.options["cells"],
                spread=spread,
                start=0.0 if delete else 1.0,
                hides=delete,
            ),
            steps=self.options["steps"],
            seeds=[self.seeds[i] for i in rows],
            optimizer=adam(rate),
            schedule=lambda share: 1 - 0.9 * share,
            redirect=0,
            importance=False,
            precision=self.precision,
            micro=self.micro,
            callbacks=self.callbacks,
        )
        mask = made.images[:, opacity:].clamp(0, 1)
        whole = torch.zeros(len(self.images), *mask.shape[1:])
        whole[rows] = 1 - mask if delete else mask
        failures |= {rows[i]: why for i, why in made.failures.items()}
        return whole, dict(sorted(failures.items())), made.interrupted


def extremal_perturbation(masks: MaskProblem) -> FoundMasks:
    """Return the mask of a given area that keeps, or loses, most of the objective. [Fong2019]_.

    The template of the area weighs more and more, which makes the mask one of 0 and 1. At the
    beginning what is shown (or deleted) costs a little everywhere, so that what matters, and not
    the order of equal values, says which part is to be the area.
    """
    share = masks.options["area"]
    delete = masks.options["kind"] == "delete"

    def costs(opacity: int) -> Objective:
        shown = channel("image", opacity)
        size = ramp(_FIRST[masks.options["kind"]], 0, 0, 0.15) * (1 - shown if delete else shown)
        template = area(1 - share if delete else share, channel=opacity)
        return size + ramp(0, _AREA) * template

    return masks.optimize(costs, spread=2.6, rate=0.05)


def meaningful_perturbation(masks: MaskProblem) -> FoundMasks:
    """Return the smooth mask for which little deleted loses, or little kept keeps. [Fong2017]_.

    The costs are the mean of what is deleted (or kept) and the mask's total variation.
    """
    longer = max(masks.images.shape[2:])
    delete = masks.options["kind"] == "delete"

    def costs(opacity: int) -> Objective:
        shown = channel("image", opacity)
        size = _SIZE * (1 - shown) if delete else _SIZE * shown
        return size + _ROUGH / longer * total_variation()

    return masks.optimize(costs, spread=1.0, rate=0.05)
