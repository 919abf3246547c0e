"""The options of :func:`featviz.attribute`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, TypedDict

from featviz.io.dataset import Dataset
from featviz.objectives import Objective
from featviz.options import Options, documented, option
from featviz.types import MethodName, Precision, Tensor
from featviz.validation import MOST


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class AttributionSettings(Options):
    """How :func:`featviz.attribute` explains an image; methods refuse options of others."""

    method: MethodName = option(
        "auto",
        "auto (grad_cam, or kernel_shap where no late maps are; the best in the time allowed if "
        "seconds are given) or one of featviz.attribution.methods.METHODS; docs/attribution.md "
        "explains each.",
        cli=str,
        metavar="NAME",
    )
    seconds: float | None = option(
        None,
        "The time allowed for an image: auto chooses the best method that takes about as long.",
        cli=float,
        bounds=(0, 1e9),
        above=True,
    )
    baseline: str | float | Tensor | Sequence[str | float | Tensor] | None = option(
        None,
        "What replaces removed pixels: blur, black, mean, a number, or images. Default: the "
        "method's own. Some methods average over several: a list, or a text such as "
        "'black, blur, noise:8, uniform:8, data:FOLDER:8'.",
        cli=str,
    )
    steps: int | None = option(
        None,
        "Integration points, noisy copies, coalitions, masks, samples of a window, or steps.",
        cli=int,
        bounds=(1, MOST),
    )
    cells: int | None = option(
        None,
        "Cells along the longer side, for methods that perturb regions, and masks.",
        cli=int,
        bounds=(1, 4096),
    )
    layer: str | None = option(None, "The layer of activation maps, such as Grad-CAM.", cli=str)
    sd: float | None = option(
        None,
        "Standard deviation of noise on the image, relative to the range of the image's values.",
        cli=float,
        bounds=(0, 1e3),
    )
    channel_noise: float | None = option(
        None,
        "Standard deviation of the factors on the network's channels, for NoiseGrad.",
        cli=float,
        bounds=(0, 1e3),
    )
    segments: Tensor | None = option(
        None, "Custom regions (*size): whole numbers, one for each region."
    )
    area: float | str | Sequence[float] | None = option(
        None,
        "The fraction of the image that an extremal perturbation preserves or deletes, or several: "
        "'0.05, 0.1, 0.2'.",
        cli=str,
    )
    kind: Literal["preserve", "delete"] | None = option(
        None,
        "Whether a mask preserves the objective with as little of the image as possible, or "
        "deletes it by removing as little as possible.",
        cli=str,
    )
    tolerance: float | None = option(
        None,
        "By what share of the difference from the baseline attributions may fail to add up to it.",
        cli=float,
        bounds=(0, 1),
        above=True,
    )
    rule: str | None = option(
        None,
        "The rules of layer-wise relevance propagation: a rule, a composite such as "
        "epsilon_plus_flat, or a text such as 'first=flat, convolution=zplus, linear=epsilon'.",
        cli=str,
    )
    through: Objective | str | None = option(
        None,
        "The units that relevance has to flow through: a channel or neuron, or a sum of several "
        "of one layer.",
        cli=str,
    )
    infill: Callable[[Tensor, Tensor], Tensor] | None = option(
        None,
        "For fido, what makes up the hidden parts: a function of images (B, C, *size) and their "
        "visibility (B, 1, *size) that returns images.",
    )
    data: Dataset | None = option(
        None,
        "The images that patterns are fitted to: a folder, or any dataset of featviz.examples.",
        cli=str,
    )
    precision: Precision = option(
        "fp32", "Precision of the network's activations: fp32, bf16 or fp16.", cli=str
    )


class AttributionKeywords(TypedDict, total=False):
    """The fields of :class:`AttributionSettings` as keywords."""

    method: MethodName
    seconds: float | None
    baseline: str | float | Tensor | Sequence[str | float | Tensor] | None
    steps: int | None
    cells: int | None
    layer: str | None
    sd: float | None
    channel_noise: float | None
    segments: Tensor | None
    area: float | str | Sequence[float] | None
    kind: Literal["preserve", "delete"] | None
    tolerance: float | None
    rule: str | None
    through: Objective | str | None
    infill: Callable[[Tensor, Tensor], Tensor] | None
    data: Dataset | None
    precision: Precision
