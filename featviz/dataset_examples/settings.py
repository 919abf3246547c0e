"""The options of :func:`featviz.examples`."""

from __future__ import annotations

import dataclasses
from typing import TypedDict

from featviz.errors import FeatvizError
from featviz.networks import devices
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
    fraction: float = option(
        0.95,
        "The fraction of the squared gradient within the boxes of channels and neurons: see "
        "featviz.dataset_examples.receptive_field.",
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
        if not 0 < self.fraction <= 1:
            raise FeatvizError(f"fraction must be above 0 and at most 1, not {self.fraction}")


class ExamplesKeywords(TypedDict, total=False):
    """The fields of :class:`ExamplesSettings` as keywords."""

    k: int
    fraction: float
    correlate: bool
    keep: bool
    sample: int
    precision: Precision
