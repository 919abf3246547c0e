"""Attribution methods by measures, for a network and images."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from featviz.attribution.measures.study import MEASURES, Study
from featviz.attribution.methods import METHODS
from featviz.errors import FeatvizError, FeatvizWarning, did_you_mean
from featviz.networks.model import Model
from featviz.types import Tensor

__all__ = ["CHANCE", "MEASURES", "Comparison", "compare_methods"]

#: The row of random orders, which have the measures of curves only.
CHANCE = "random orders"


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
        """Return the mean over the images that have a value; NaN where nothing was measured."""
        found = self.values[method].get(measure)
        if found is None:
            return math.nan
        return float(found[found.isfinite()].double().mean())

    def markdown(self) -> str:
        """Return a Markdown table of the means, a row for each method."""
        arrows = {"low": " ↓", "high": " ↑", "": ""}
        measured = [name for name in MEASURES if any(name in row for row in self.values.values())]
        heads = [f"{name.replace('_', ' ')}{arrows[MEASURES[name]]}" for name in measured]
        rows = [["method", *heads], ["---"] * (1 + len(heads))]
        for method in self.values:
            means = [self.mean(method, name) for name in measured]
            texts = ["" if math.isnan(v) else f"{v:.2f}" for v in means]
            rows.append([method if method == CHANCE else f"`{method}`", *texts])
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
    measures: Sequence[str] | None = None,
    seed: int = 0,
    samples: int = 16,
    steps: int = 14,
    orders: int = 2,
    report: Callable[[str], Any] | None = None,
) -> Comparison:
    """Explain the predicted classes of images (B, C, *size) by each method, and measure the maps.

    ``deletion``, ``insertion`` and ``beats_random`` are those of the curves with ``steps`` and
    ``orders``; ``road`` is the gap of ROAD over the objective's difference from the blurred image;
    ``sensitivity_n`` is the mean over the fractions, with ``samples`` each;
    ``sensitivity_max`` is that of one noisy neighbour; ``random_network`` is the rank correlation
    of the absolute map with that of a network whose weights are all shuffled; ``other_class`` is
    the distance from the map of the class with the second highest logit; ``seconds`` are for an
    image. ``methods`` and ``measures`` are all by default; a method that refuses the network has no
    row. A last row has the means of the random orders.

    Parameters
    ----------
    report
        Called with the name of each method before it starts.

    Raises
    ------
    FeatvizError
        For an unknown method or measure, or a network without class logits.
    """
    names = list(METHODS) if methods is None else list(methods)
    wanted = list(MEASURES) if measures is None else list(measures)
    for known, given, kind in ((METHODS, names, "method"), (MEASURES, wanted, "measure")):
        for name in given:
            if name not in known:
                hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
                raise FeatvizError(f"no {kind} {name!r}{hint}")
    study = Study.of(model, images, wanted, seed, samples, {"steps": steps, "orders": orders})
    values, failures = {}, {}
    for name in names:
        if report is not None:
            report(name)
        try:
            with _zeros_are_answers():
                values[name] = study.row(name)
        except FeatvizError as error:
            failures[name] = str(error)
    if study.curves:
        values[CHANCE] = study.chance()
    return Comparison(values, failures)


@contextlib.contextmanager
def _zeros_are_answers() -> Any:
    """Silence the warnings of maps that are zero or that find nothing, which the table shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FeatvizWarning)
        yield
