"""The options of :func:`featviz.attack` and :func:`featviz.patch_attack`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from featviz.attacks.algorithms import ALGORITHMS
from featviz.attacks.criterion import LOSSES
from featviz.errors import FeatvizError
from featviz.options import Options, documented, option
from featviz.param.balls import NORMS
from featviz.transforms import Transform
from featviz.types import Precision, Size
from featviz.validation import MOST

#: First radius of the search for the smallest one.
FIRST_RADIUS = {"linf": 1 / 255, "l2": 0.5, "l1": 8.0}


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackSettings(Options):
    """How :func:`featviz.attack` perturbs images within a ball around them."""

    norm: Literal["linf", "l2", "l1"] = option(
        "linf", f"The norm of the ball: {', '.join(NORMS)}.", cli=str
    )
    eps: float | str = option(
        4 / 255,
        "Radius of the ball in image units, a number or a text such as 4/255; min searches for the "
        "smallest one that succeeds, for each image.",
        cli=str,
    )
    steps: int = option(20, "Number of updates.", cli=int, bounds=(1, MOST))
    step_size: float | None = option(
        None, "Step size in image units. Default: the method's, such as 2.5 eps / steps.",
        cli=float, bounds=(0, 1e6), above=True,
    )  # fmt: skip
    method: Literal["pgd", "fgsm", "ifgsm", "mifgsm", "apgd"] = option(
        "pgd", f"The attack: {', '.join(ALGORITHMS)}.", cli=str
    )
    loss: Literal["ce", "margin", "dlr"] = option(
        "ce", f"Loss to maximize for classes: {', '.join(LOSSES)}.", cli=str
    )
    restarts: int = option(
        1,
        "Number of runs, each for the images for which the previous ones failed; for a universal "
        "perturbation, the run with the most successes is returned.",
        cli=int,
        bounds=(1, MOST),
    )
    random_start: bool = option(True, "Whether pgd and apgd start at a random point in the ball.")
    transforms: Sequence[Transform] | str = option(
        (), "Transforms that the perturbation has to be robust to.", cli=str
    )
    eot: int = option(
        1,
        "Random draws of the transforms per step: expectation over transformation. [Athalye2018]_",
        cli=int,
        bounds=(1, MOST),
    )
    early_exit: bool = option(
        True, "Stop perturbing an image once it succeeds; on a GPU this synchronizes at each step."
    )
    universal: bool = option(
        False, "One perturbation for all images, in state['delta']. [Moosavi2017]_", cli=bool
    )
    eight_bit: bool | None = option(
        None,
        "Round the originals and, within the ball, the attacked images to the 256 levels of an "
        "8-bit file, at every step. Default: for images that a file can hold (1 or 3 channels, two "
        "spatial axes), if eps is at least 1/255.",
    )
    precision: Precision = option(
        "fp32", "Precision of the network's activations: fp32, bf16 or fp16.", cli=str
    )

    def resolve(self, numel: int, *, drawable: bool = True) -> AttackSettings:
        """Resolve the defaults and check the values, for images with ``numel`` values.

        ``drawable`` is whether an image file can hold them, unlike signals and volumes.

        The resolved ``eps`` is the radius, or the first one of a search; ``steps`` may be fixed by
        the method.

        Raises
        ------
        FeatvizError
            For invalid or inconsistent values.
        """
        if self.norm not in NORMS:
            raise FeatvizError(f"no norm {self.norm!r}: use {', '.join(NORMS)}")
        radius = read_radius(
            FIRST_RADIUS[self.norm] if self.searched else self.eps, self.norm, numel
        )
        if self.method not in ALGORITHMS:
            raise FeatvizError(f"no method {self.method!r}: use {', '.join(ALGORITHMS)}")
        if self.method == "apgd" and (self.norm == "l1" or self.universal):
            raise FeatvizError("apgd supports the norms linf and l2, and no universal perturbation")
        if self.searched and self.universal:
            raise FeatvizError('eps="min" is per image: a universal perturbation needs a number')
        fits_eight_bit = radius * 255 >= 1 - 1e-6
        if self.eight_bit and not fits_eight_bit:
            raise FeatvizError(
                f"8 bits cannot represent a difference within eps {self.eps}: use at least 1/255"
            )
        eight_bit = self.eight_bit
        if eight_bit is None:
            eight_bit = drawable and fits_eight_bit and not self.searched
        steps = ALGORITHMS[self.method].steps or self.steps
        return dataclasses.replace(self, eps=radius, steps=steps, eight_bit=eight_bit)

    @property
    def searched(self) -> bool:
        """Whether the smallest radius is searched for."""
        return self.eps == "min"

    @property
    def record(self) -> dict[str, Any]:
        """The settings that output files record."""
        names = ("norm", "steps", "step_size", "method", "loss", "restarts", "random_start")
        return {name: getattr(self, name) for name in (*names, "precision")}


class AttackKeywords(TypedDict, total=False):
    """The fields of :class:`AttackSettings` as keywords."""

    norm: Literal["linf", "l2", "l1"]
    eps: float | str
    steps: int
    step_size: float | None
    method: Literal["pgd", "fgsm", "ifgsm", "mifgsm", "apgd"]
    loss: Literal["ce", "margin", "dlr"]
    restarts: int
    random_start: bool
    transforms: Sequence[Transform] | str
    eot: int
    early_exit: bool
    universal: bool
    eight_bit: bool | None
    precision: Precision


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchSettings(Options):
    """How :func:`featviz.patch_attack` optimizes a patch."""

    size: Size = option(50, "Side of the patch in pixels, or (h, w).")
    steps: int = option(200, "Number of updates.", cli=int, bounds=(1, MOST))
    lr: float = option(0.05, "Adam's learning rate.", bounds=(0, 1e6), above=True)
    loss: Literal["ce", "margin", "dlr"] = option(
        "ce", f"Loss to maximize for classes: {', '.join(LOSSES)}.", cli=str
    )
    degrees: float = option(
        20.0, "Largest rotation of the patch, in either direction.", bounds=(0, 360)
    )
    scale: tuple[float, float] = option(
        (0.9, 1.1), "Range of the factor that the patch is scaled by."
    )
    transforms: Sequence[Transform] | str = option(
        (), "Transforms of the patched images that the patch has to be robust to.", cli=str
    )
    precision: Precision = option(
        "fp32", "Precision of the network's activations: fp32, bf16 or fp16.", cli=str
    )


class PatchKeywords(TypedDict, total=False):
    """The fields of :class:`PatchSettings` as keywords."""

    size: Size
    steps: int
    lr: float
    loss: Literal["ce", "margin", "dlr"]
    degrees: float
    scale: tuple[float, float]
    transforms: Sequence[Transform] | str
    precision: Precision


def read_radius(eps: float | str, norm: str, numel: int) -> float:
    """Parse a radius, given as a number or as a text such as ``0.01`` or ``4/255``.

    Raises
    ------
    FeatvizError
        If it is not a number, not positive, or larger than any difference between images.
    """
    try:
        if isinstance(eps, (list, tuple)):
            raise FeatvizError(
                "eps is one radius: [fv.attack(model, images, eps=e) for e in radii] for several"
            )
        numerator, slash, denominator = str(eps).partition("/")
        value = float(numerator) / (float(denominator) if slash else 1.0)
    except FeatvizError:
        raise
    except (ValueError, TypeError, ZeroDivisionError):
        raise FeatvizError(f"eps must be a number such as 4/255, or min, not {eps!r}") from None
    largest = {"linf": 1.0, "l2": math.sqrt(numel), "l1": float(numel)}[norm]
    if not 0 < value <= largest:
        hint = f": did you mean {eps}/255?" if norm == "linf" and 1 < value <= 255 else ""
        raise FeatvizError(
            f"eps must be above 0 and at most {largest:g} for {norm}, not {eps}{hint}"
        )
    return value
