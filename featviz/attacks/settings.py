"""How images are attacked: the options of ``featviz.attack`` and ``featviz.patch_attack``."""

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
from featviz.validation import positive_int

#: Where the search for the smallest radius starts.
FIRST_RADIUS = {"linf": 1 / 255, "l2": 0.5, "l1": 8.0}


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackSettings(Options):
    """How :func:`featviz.attack` moves images within a ball around them."""

    norm: Literal["linf", "l2", "l1"] = option(
        "linf", f"The norm of the ball: {', '.join(NORMS)}.", cli=str
    )
    eps: float | str = option(
        4 / 255,
        "Its radius, in image units, a number or a text such as 4/255; min searches, for each "
        "image, the smallest that succeeds.",
        cli=str,
    )
    steps: int = option(20, "Updates.", cli=int)
    step_size: float | None = option(
        None, "Length of a step, in image units. Default: the method's, such as 2.5 eps / steps.",
        cli=float,
    )  # fmt: skip
    method: Literal["pgd", "fgsm", "ifgsm", "mifgsm", "apgd"] = option(
        "pgd", f"The attack: {', '.join(ALGORITHMS)}.", cli=str
    )
    loss: Literal["ce", "margin", "dlr"] = option(
        "ce", f"What is raised for classes: {', '.join(LOSSES)}.", cli=str
    )
    restarts: int = option(
        1,
        "Runs, the later ones for the images that the earlier ones failed with; of a universal "
        "perturbation's, the one that succeeds with most images is returned.",
        cli=int,
    )
    random_start: bool = option(True, "Whether pgd and apgd start at a random point of the ball.")
    transforms: Sequence[Transform] | str = option(
        (), "Transforms that the image has to survive.", cli=str
    )
    eot: int = option(
        1,
        "Draws of the transforms in each step: expectation over transformations. [Athalye2018]_",
        cli=int,
    )
    early_exit: bool = option(
        True, "Leave an image alone once it succeeds; on a GPU this waits for it at each step."
    )
    universal: bool = option(
        False, "One difference for all the images, state['delta']. [Moosavi2017]_", cli=bool
    )
    eight_bit: bool | None = option(
        None,
        "Let the network see, and return, what an 8-bit file holds, inside the ball in whole "
        "levels, the originals rounded too. Default: from an eps of 1/255 on.",
    )
    precision: Precision = option(
        "fp32", "Precision of the network's activations: fp32, bf16 or fp16.", cli=str
    )

    def resolve(self, numel: int) -> AttackSettings:
        """Return the settings with nothing left open, for images of ``numel`` values.

        ``eps`` is then the radius, or the first one of a search, and ``steps`` the method's.

        Raises
        ------
        FeatvizError
            For values that cannot work, or do not go together.
        """
        if self.norm not in NORMS:
            raise FeatvizError(f"no norm {self.norm!r}: it is {', '.join(NORMS)}")
        radius = read_radius(
            FIRST_RADIUS[self.norm] if self.searched else self.eps, self.norm, numel
        )
        if self.method not in ALGORITHMS:
            raise FeatvizError(f"no method {self.method!r}: it is {', '.join(ALGORITHMS)}")
        if self.method == "apgd" and (self.norm == "l1" or self.universal):
            raise FeatvizError("apgd takes the norms linf and l2, and no universal perturbation")
        if self.searched and self.universal:
            raise FeatvizError('eps="min" is per image: give a universal perturbation a number')
        for name in ("steps", "restarts", "eot"):
            positive_int(name, getattr(self, name))
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise FeatvizError(f"step_size must be positive, not {self.step_size}")
        levels = radius * 255 >= 1 - 1e-6
        if self.eight_bit and not levels:
            raise FeatvizError(
                f"8 bits hold no difference within eps {self.eps}: it takes at least 1/255"
            )
        eight_bit = levels and not self.searched if self.eight_bit is None else self.eight_bit
        steps = ALGORITHMS[self.method].steps or self.steps
        return dataclasses.replace(self, eps=radius, steps=steps, eight_bit=eight_bit)

    @property
    def searched(self) -> bool:
        """Whether the smallest radius is searched for."""
        return self.eps == "min"

    @property
    def record(self) -> dict[str, Any]:
        """What a file says of them."""
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
    """How :func:`featviz.patch_attack` makes a patch."""

    size: Size = option(50, "Side of the patch in pixels, or (h, w).")
    steps: int = option(200, "Updates.", cli=int)
    lr: float = option(0.05, "Adam's learning rate.")
    loss: Literal["ce", "margin", "dlr"] = option(
        "ce", f"What is raised for classes: {', '.join(LOSSES)}.", cli=str
    )
    degrees: float = option(20.0, "How far the patch is turned, either way.")
    scale: tuple[float, float] = option((0.9, 1.1), "By which factors it is enlarged.")
    transforms: Sequence[Transform] | str = option(
        (), "Transforms that the images with the patch have to survive, too.", cli=str
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
    """Return a radius that is given as a number or as text, ``0.01`` or ``4/255``.

    Raises
    ------
    FeatvizError
        If it is no number, not positive, or reaches beyond every picture.
    """
    try:
        numerator, slash, denominator = str(eps).partition("/")
        value = float(numerator) / (float(denominator) if slash else 1.0)
    except (ValueError, TypeError, ZeroDivisionError):
        raise FeatvizError(f"eps must be a number such as 4/255, or min, not {eps!r}") from None
    largest = {"linf": 1.0, "l2": math.sqrt(numel), "l1": float(numel)}[norm]
    if not 0 < value <= largest:
        raise FeatvizError(f"eps must be above 0 and at most {largest:g} for {norm}, not {eps}")
    return value
