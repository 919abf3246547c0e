"""The options of :func:`featviz.examples`."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypedDict

from featviz.errors import FeatvizError
from featviz.networks import devices
from featviz.objectives import Objective
from featviz.options import Options, documented, option
from featviz.types import Precision
from featviz.validation import MOST


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class ExamplesSettings(Options):
    """What :func:`featviz.examples` measures and keeps."""

    k: int = option(
        9,
        "Images with the highest, and with the lowest, values; ties rank the first image higher.",
        cli=int,
        bounds=(1, 10_000),
    )
    by: Literal["activation", "relevance"] = option(
        "activation",
        "Rank by the values of the objectives, activation, or by how much these units contribute "
        "to another objective, relevance.",
        cli=str,
    )
    relevant_for: Objective | str | None = option(
        None,
        "What units are relevant for, with by=relevance. Default: each image's predicted class.",
        cli=str,
    )
    rule: str | None = option(
        None,
        "The rules of relevance propagation, with by=relevance; docs/attribution.md. Default: "
        "epsilon_plus.",
        cli=str,
    )
    fraction: float = option(
        0.95,
        "The fraction of the squared gradient within the boxes of channels and neurons: see "
        "featviz.dataset_examples.receptive_field.",
        bounds=(0, 1),
        above=True,
    )
    correlate: bool = option(
        False,
        "Whether to also measure the correlations of the units of each layer over the images.",
    )
    keep: bool = option(
        True,
        "Keep the ranked images in memory, as PNG, each once: at most 2 k for each objective. "
        "Otherwise they are read from the dataset again when needed.",
    )
    sample: int = option(
        0, "Number of additional images, sampled at random with the seed: drawn.", bounds=(0, MOST)
    )
    precision: Precision = option(
        "fp32", "Precision of the network's activations: fp32, bf16 or fp16.", cli=str
    )

    def check(self) -> None:
        """Raise :class:`FeatvizError` for invalid values."""
        devices.half(self.precision)
        if self.by == "activation":
            for name in ("relevant_for", "rule"):
                if getattr(self, name) is not None:
                    raise FeatvizError(f"{name} is for by='relevance'")
        elif self.precision != "fp32":
            raise FeatvizError("propagation divides by small numbers: it needs precision fp32")


class ExamplesKeywords(TypedDict, total=False):
    """The fields of :class:`ExamplesSettings` as keywords."""

    k: int
    by: Literal["activation", "relevance"]
    relevant_for: Objective | str | None
    rule: str | None
    fraction: float
    correlate: bool
    keep: bool
    sample: int
    precision: Precision
