"""The options of :func:`featviz.attribute`."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypedDict

from featviz.options import Options, documented, option
from featviz.types import Precision, Tensor
from featviz.validation import MOST


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class AttributionSettings(Options):
    """How :func:`featviz.attribute` explains an image; methods refuse options of others."""

    method: str = option(
        "auto",
        "auto (grad_cam, or kernel_shap where no late maps are) or one of "
        "featviz.attribution.methods.METHODS; docs/attribution.md explains each.",
        cli=str,
    )
    baseline: str | float | Tensor | None = option(
        None,
        "What replaces removed pixels: blur, black, mean, a number, or images. Default: the "
        "method's own.",
        cli=str,
    )
    steps: int | None = option(
        None,
        "Integration points, noisy copies, coalitions, or optimization steps of a mask.",
        cli=int,
        bounds=(1, MOST),
    )
    cells: int | None = option(
        None,
        "Cells along the longer side, for methods that perturb regions, and masks.",
        cli=int,
        bounds=(1, 4096),
    )
    layer: str | None = option(None, "The layer of Grad-CAM.", cli=str)
    sd: float | None = option(
        None,
        "Standard deviation of SmoothGrad's noise, relative to the range of the image's values.",
        cli=float,
        bounds=(0, 1e3),
    )
    segments: Tensor | None = option(
        None, "Custom regions (*size): whole numbers, one for each region."
    )
    area: float | None = option(
        None,
        "The fraction of the image that an extremal perturbation preserves or deletes.",
        cli=float,
    )
    kind: Literal["preserve", "delete"] | None = option(
        None,
        "Whether a mask preserves the objective with as little of the image as possible, or "
        "deletes it by removing as little as possible.",
        cli=str,
    )
    precision: Precision = option(
        "fp32", "Precision of the network's activations: fp32, bf16 or fp16.", cli=str
    )


class AttributionKeywords(TypedDict, total=False):
    """The fields of :class:`AttributionSettings` as keywords."""

    method: str
    baseline: str | float | Tensor | None
    steps: int | None
    cells: int | None
    layer: str | None
    sd: float | None
    segments: Tensor | None
    area: float | None
    kind: Literal["preserve", "delete"] | None
    precision: Precision
