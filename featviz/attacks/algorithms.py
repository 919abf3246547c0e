"""The attack algorithms by name: start, step size, update rule and returned state."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

from featviz.attacks.update_rules import Apgd, Momentum, Steepest
from featviz.param import Bounded
from featviz.types import OptimizerFactory, Tensor


@dataclasses.dataclass(frozen=True)
class AttackAlgorithm:
    """An attack: ``rate`` maps the number of steps to step size / eps; ``update`` is the rule."""

    rate: Callable[[int], float]
    update: Callable[[Bounded, Tensor, int], OptimizerFactory]
    random_start: bool = False
    keep: Literal["last", "best"] = "last"
    steps: int | None = None


def _steepest(param: Bounded, rate: Tensor, steps: int) -> OptimizerFactory:
    return functools.partial(Steepest, rate=rate, norm=param.norm)


def _momentum(param: Bounded, rate: Tensor, steps: int) -> OptimizerFactory:
    return functools.partial(Momentum, rate=rate, norm=param.norm)


def _apgd(param: Bounded, rate: Tensor, steps: int) -> OptimizerFactory:
    return functools.partial(Apgd, rate=rate, norm=param.norm, steps=steps, project=param.nearest)


#: FGSM [Goodfellow2015]_, BIM (``ifgsm``) [Kurakin2017]_, MI-FGSM [Dong2018]_, PGD [Madry2018]_ and
#: Auto-PGD [Croce2020]_, with their papers' step sizes.
ALGORITHMS = {
    "pgd": AttackAlgorithm(lambda steps: 2.5 / steps, _steepest, random_start=True),
    "fgsm": AttackAlgorithm(lambda steps: 1.0, _steepest, steps=1),
    "ifgsm": AttackAlgorithm(lambda steps: 1 / steps, _steepest),
    "mifgsm": AttackAlgorithm(lambda steps: 1 / steps, _momentum),
    "apgd": AttackAlgorithm(lambda steps: 2.0, _apgd, random_start=True, keep="best"),
}
