"""What is asked of a dataset: the options of :func:`featviz.examples`."""

from __future__ import annotations

import dataclasses
from typing import TypedDict

from featviz.errors import FeatvizError
from featviz.networks import devices
from featviz.options import Options, documented, option
from featviz.types import Precision
from featviz.validation import positive_int


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class ExamplesSettings(Options):
    """What :func:`featviz.examples` keeps of a dataset."""

    k: int = option(
        9, "Images kept at each end; of equal values the first image ranks higher.", cli=int
    )
    fraction: float = option(
        0.95,
        "How much of the squared gradient the boxes of channels and neurons hold: see "
        "featviz.dataset_examples.receptive_field.",
    )
    correlate: bool = option(
        False, "Whether to measure how the units of each layer correlate over the images, too."
    )
    keep: bool = option(
        True,
        "Hold the images that rank, as PNG, each once: at most 2 k for each objective. Otherwise "
        "they are read from the dataset again when they are looked at.",
    )
    sample: int = option(
        0, "So many images more, drawn at random with the seed, whatever their values: drawn."
    )
    precision: Precision = option(
        "fp32", "Precision of the network's activations: fp32, bf16 or fp16.", cli=str
    )

    def check(self) -> None:
        """Raise :class:`FeatvizError` for values that cannot work."""
        positive_int("k", self.k)
        devices.half(self.precision)
        if not 0 < self.fraction <= 1:
            raise FeatvizError(f"fraction must be above 0 and at most 1, not {self.fraction}")
        if self.sample < 0:
            raise FeatvizError(f"sample must not be negative, not {self.sample}")


class ExamplesKeywords(TypedDict, total=False):
    """The fields of :class:`ExamplesSettings` as keywords."""

    k: int
    fraction: float
    correlate: bool
    keep: bool
    sample: int
    precision: Precision
