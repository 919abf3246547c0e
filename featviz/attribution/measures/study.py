"""The measures of one method's maps: what the rows of a table share, and a row."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import cast

import torch

from featviz.attribution.api import attribute
from featviz.attribution.baselines import baseline
from featviz.attribution.curves import Curves
from featviz.attribution.measures.faithfulness import infidelity, sensitivity_n
from featviz.attribution.measures.heat_statistics import distance, rank_correlation, sparseness
from featviz.attribution.measures.road import road
from featviz.attribution.measures.stability import stability
from featviz.attribution.measures.weight_cascade import randomized, weighted_layers
from featviz.attribution.prediction import predicted_logits
from featviz.attribution.result import Attribution
from featviz.networks.model import Model
from featviz.objectives import Objective, class_logit
from featviz.optim.collecting import logits_layer
from featviz.optim.evaluator import Evaluator
from featviz.optim.tracing import TraceCache
from featviz.seeds import expand
from featviz.types import MethodName, Tensor

#: Measures by name, with the direction in which a map is better.
MEASURES = {
    "deletion": "low",
    "insertion": "high",
    "beats_random": "high",
    "road": "high",
    "sensitivity_n": "high",
    "infidelity": "low",
    "sensitivity_max": "low",
    "sparseness": "",
    "random_network": "low",
    "other_class": "high",
    "seconds": "low",
}
#: Fractions of the pixels that ROAD removes.
_REMOVED = (0.1, 0.3, 0.5)


@dataclasses.dataclass
class Study:
    """What the rows of a table share: images, classes, the shuffled network, random orders."""

    model: Model
    images: Tensor
    measures: list[str]
    goals: Sequence[Objective]
    others: Sequence[Objective]
    seeds: list[int]
    seed: int
    samples: int
    options: dict[str, int]
    shuffled: Model | None
    curves: Curves | None = None
    traces: TraceCache = dataclasses.field(default_factory=TraceCache)

    @classmethod
    def of(
        cls,
        model: Model,
        images: Tensor,
        measures: list[str],
        seed: int,
        samples: int,
        options: dict[str, int],
    ) -> Study:
        goals = predicted_logits(model, images, None)
        layer = logits_layer(model, tuple(images.shape[2:]))
        assert layer is not None
        with torch.no_grad():
            logits = torch.cat([model.activations(i, layer)[layer] for i in images.split(1)])
        others = [class_logit(int(c)) for c in logits.topk(2, 1).indices[:, 1]]
        shuffled = None
        if "random_network" in measures:
            shuffled = randomized(model, weighted_layers(model), images, seed=seed)
        seeds = expand(seed, len(images))
        return cls(model, images, measures, goals, others, seeds, seed, samples, options, shuffled)

    def row(self, method: str) -> dict[str, Tensor]:
        """Return the measures of a method, each (B,)."""
        begun = time.perf_counter()
        result = self._explain(method, self.model, self.goals)
        seconds = (time.perf_counter() - begun) / len(self.images)
        row = {"seconds": torch.full((len(self.images),), seconds)}
        wanted = set(self.measures)
        if wanted & {"deletion", "insertion", "beats_random"}:
            curves = result.curves(
                self.model, random_orders_of=self.curves, traces=self.traces, **self.options
            )
            self.curves = curves
            row |= {
                "deletion": curves.deletion_auc,
                "insertion": curves.insertion_auc,
                "beats_random": curves.beats_random.double(),
            }
        if "road" in wanted:
            row["road"] = self._road(result)
        if "sensitivity_n" in wanted:
            row["sensitivity_n"] = sensitivity_n(result, self.model, samples=self.samples).mean(1)
        if "infidelity" in wanted:
            row["infidelity"] = infidelity(result, self.model, samples=2 * self.samples)
        if "sensitivity_max" in wanted:
            noisy = stability(
                self.model,
                self.images,
                self.goals,
                samples=1,
                result=result,
                seed=self.seeds,
                method=method,
            )
            row["sensitivity_max"] = noisy.sensitivity_max
        if "sparseness" in wanted:
            row["sparseness"] = sparseness(result.pixels)
        if self.shuffled is not None:
            control = self._explain(method, self.shuffled, self.goals)
            row["random_network"] = rank_correlation(result.pixels.abs(), control.pixels.abs())
        if "other_class" in wanted:
            other = self._explain(method, self.model, self.others)
            row["other_class"] = distance(result.pixels, other.pixels)
        return {name: row[name] for name in MEASURES if name in wanted and name in row}

    def chance(self) -> dict[str, Tensor]:
        """Return the deletion and insertion of the random orders, (B,)."""
        assert self.curves is not None
        areas = {
            "deletion": self.curves.random_deletion_auc.mean(1),
            "insertion": self.curves.random_insertion_auc.mean(1),
        }
        return {name: values for name, values in areas.items() if name in self.measures}

    def _explain(self, method: str, network: Model, goals: Sequence[Objective]) -> Attribution:
        return attribute(
            network, self.images, goals, method=cast("MethodName", method), seed=self.seeds
        )

    def _road(self, result: Attribution) -> Tensor:
        """Return the gap of ROAD in units of the difference from the blurred image, (B,)."""
        if self.images.ndim != 4:
            return torch.full((len(self.images),), math.nan)
        size = tuple(self.images.shape[2:])
        with self.model.session():
            blurred = torch.cat(
                [
                    Evaluator(self.model, goal, size).scores(base[None].to(self.model.device))
                    for goal, base in zip(self.goals, baseline("blur", self.images), strict=True)
                ]
            )
        drop = (result.scores - blurred).double()
        gap = road(result, self.model, fractions=_REMOVED).gap
        return torch.where(drop > 0, gap / drop, math.nan)
