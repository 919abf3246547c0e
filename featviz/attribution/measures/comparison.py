"""Attribution methods by measures, for a network and images."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz.attribution.api import attribute
from featviz.attribution.measures.faithfulness import infidelity, sensitivity_n
from featviz.attribution.measures.heat_statistics import distance, rank_correlation, sparseness
from featviz.attribution.measures.stability import stability
from featviz.attribution.measures.weight_cascade import randomized, weighted_layers
from featviz.attribution.methods import METHODS
from featviz.attribution.prediction import predicted_logits
from featviz.attribution.result import Attribution
from featviz.errors import FeatvizError, FeatvizWarning, did_you_mean
from featviz.networks.model import Model
from featviz.objectives import class_logit
from featviz.optim.collecting import logits_layer
from featviz.seeds import expand
from featviz.types import Tensor

#: Measures by name, with the direction in which a map is better.
MEASURES = {
    "deletion": "low",
    "insertion": "high",
    "beats_random": "high",
    "sensitivity_n": "high",
    "infidelity": "low",
    "sensitivity_max": "low",
    "sparseness": "",
    "random_network": "low",
    "other_class": "high",
    "seconds": "low",
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods by measures; NaN where a measure has no value for an image.

    Attributes
    ----------
    values
        The values (B,) by method and measure.
    failures
        Why a method could not explain the images, by its name.
    """

    values: dict[str, dict[str, Tensor]]
    failures: dict[str, str]

    def mean(self, method: str, measure: str) -> float:
        """Return the mean over the images that have a value; NaN without any."""
        found = self.values[method][measure]
        return float(found[found.isfinite()].double().mean())

    def markdown(self) -> str:
        """Return a Markdown table of the means, a row for each method."""
        arrows = {"low": " ↓", "high": " ↑", "": ""}
        heads = [f"{name.replace('_', ' ')}{arrows[better]}" for name, better in MEASURES.items()]
        rows = [["method", *heads], ["---"] * (1 + len(heads))]
        for method in self.values:
            means = [self.mean(method, name) for name in MEASURES]
            texts = ["" if math.isnan(v) else f"{v:.2f}" for v in means]
            rows.append([f"`{method}`", *texts])
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines += [f"\n`{method}`: {why}" for method, why in self.failures.items()]
        return "\n".join(lines)

    @property
    def record(self) -> dict[str, Any]:
        """The values of each image and the failures, for JSON; None for NaN."""
        table = {
            method: {
                name: [v if math.isfinite(v) else None for v in values.tolist()]
                for name, values in row.items()
            }
            for method, row in self.values.items()
        }
        return {"measures": MEASURES, "values": table, "failures": self.failures}


def compare_methods(
    model: Model,
    images: Tensor,
    methods: Sequence[str] | None = None,
    *,
    seed: int = 0,
    samples: int = 16,
    steps: int = 14,
    orders: int = 2,
    report: Callable[[str], Any] | None = None,
) -> Comparison:
    """Explain the predicted classes of images (B, C, *size) by each method, and measure the maps.

    ``deletion``, ``insertion`` and ``beats_random`` are those of the curves with ``steps`` and
    ``orders``; ``sensitivity_n`` is the mean over the fractions, with ``samples`` each;
    ``sensitivity_max`` is that of one noisy neighbour; ``random_network`` is the rank correlation
    of the absolute map with that of a network whose weights are all shuffled; ``other_class`` is
    the distance from the map of the class with the second highest logit; ``seconds`` are for an
    image. ``methods`` are all by default; a method that refuses the network has no row.

    Parameters
    ----------
    report
        Called with the name of each method before it starts.

    Raises
    ------
    FeatvizError
        For an unknown method, or a network without class logits.
    """
    names = list(METHODS) if methods is None else list(methods)
    for name in names:
        if name not in METHODS:
            raise FeatvizError(f"no method {name!r}{did_you_mean(name, METHODS)}")
    goals = predicted_logits(model, images, None)
    layer = logits_layer(model, tuple(images.shape[2:]))
    assert layer is not None
    with torch.no_grad():
        logits = torch.cat([model.activations(i, layer)[layer] for i in images.split(1)])
    others = [class_logit(int(c)) for c in logits.topk(2, 1).indices[:, 1]]
    shuffled = randomized(model, weighted_layers(model), images, seed=seed)
    seeds = expand(seed, len(images))
    values, failures = {}, {}
    for name in names:
        if report is not None:
            report(name)

        def explain(network: Model, goals: Sequence[Any], name: str = name) -> Attribution:
            return attribute(network, images, goals, method=name, seed=seeds)

        try:
            with _zeros_are_answers():
                begun = time.perf_counter()
                result = explain(model, goals)
                seconds = (time.perf_counter() - begun) / len(images)
                curves = result.curves(model, steps=steps, orders=orders)
                values[name] = {
                    "deletion": curves.deletion_auc,
                    "insertion": curves.insertion_auc,
                    "beats_random": curves.beats_random.double(),
                    "sensitivity_n": sensitivity_n(result, model, samples=samples).mean(1),
                    "infidelity": infidelity(result, model, samples=2 * samples),
                    "sensitivity_max": stability(
                        model, images, goals, samples=1, result=result, seed=seeds, method=name
                    ).sensitivity_max,
                    "sparseness": sparseness(result.pixels),
                    "random_network": rank_correlation(
                        result.pixels.abs(), explain(shuffled, goals).pixels.abs()
                    ),
                    "other_class": distance(result.pixels, explain(model, others).pixels),
                    "seconds": torch.full((len(images),), seconds),
                }
        except FeatvizError as error:
            failures[name] = str(error)
    return Comparison(values, failures)


@contextlib.contextmanager
def _zeros_are_answers() -> Any:
    """Silence the warnings of maps that are zero or that find nothing, which the table shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FeatvizWarning)
        yield
