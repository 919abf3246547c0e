"""The optimizer of a run: its learning rate, schedule and weight decay."""

from __future__ import annotations

import dataclasses

from featviz.errors import FeatvizError
from featviz.optim.optimizers import (
    SIGNAL_RATE,
    SIGNAL_SHRINKAGE,
    default_optimizer,
    default_rate,
    named_optimizer,
    optimizer_with_rate,
)
from featviz.optim.quality import Pace, Quality
from featviz.param import Fourier, Param
from featviz.types import OptimizerFactory, Schedule, ScheduleName


@dataclasses.dataclass(frozen=True)
class ResolvedPace:
    """What moves the parameters: ``usual`` names the default optimizer, ``optimizer`` makes it."""

    usual: str
    optimizer: OptimizerFactory
    lr: float | None
    schedule: Schedule | ScheduleName
    weight_decay: float


def resolve_pace(
    preset: Quality,
    param: Param,
    steps: int,
    *,
    optimizer: OptimizerFactory | None,
    lr: float | None,
    schedule: Schedule | ScheduleName | None,
    weight_decay: float | None,
) -> ResolvedPace:
    """Return how ``param`` is moved in ``steps`` steps; what is None is that of ``preset``.

    Raises
    ------
    FeatvizError
        If a weight decay is given for an optimizer of one's own, or takes away all of a parameter
        in a step.
    """
    usual = default_optimizer(isinstance(param, Fourier), param.shape)
    if optimizer is not None:
        if weight_decay:
            raise FeatvizError("weight_decay is for the default optimizer, not for a given one")
        return ResolvedPace(
            usual, optimizer_with_rate(optimizer, lr), lr, schedule or "constant", 0.0
        )
    pace = _pace(preset, param, weight_decay)
    if lr is None:
        lr = SIGNAL_RATE if usual == "normalized" else default_rate(steps, pace.rate) * param.rate
    if weight_decay is None:
        weight_decay = SIGNAL_SHRINKAGE / lr if usual == "normalized" else pace.weight_decay
    if lr * weight_decay >= 1:
        raise FeatvizError(
            f"lr {lr:g} with weight_decay {weight_decay:g} takes away all of a parameter in a "
            "step: their product has to be below 1; lower lr, or give weight_decay=0"
        )
    made = named_optimizer(usual, lr, weight_decay)
    return ResolvedPace(usual, made, lr, schedule or pace.schedule, weight_decay)


def fades(param: Param) -> bool:
    """Whether images begin at noise, and what nothing sustains can vanish from them."""
    return param.fades and not param.starts_at_images and len(param.shape) == 2


def _pace(preset: Quality, param: Param, weight_decay: float | None) -> Pace:
    """Return the pace for a parameterization; a weight decay of 0 asks for the steady one."""
    return preset.fading if fades(param) and weight_decay != 0 else preset.steady
