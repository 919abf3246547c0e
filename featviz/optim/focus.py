"""Gradients concentrated where they are strong: detail on the object, and calm around it.

The gradient of a class has texture everywhere, since wherever it is drawn it is rewarded a little;
an optimizer that normalizes gradients then covers an image evenly. In photographs detail is
concentrated, on what is in focus.
"""

from __future__ import annotations

import dataclasses

import torch
from torch.nn import functional as F

from featviz.errors import FeatvizError
from featviz.objectives.base import Objective
from featviz.objectives.classes import ClassLogit
from featviz.optim.pace import fades
from featviz.param import Param
from featviz.types import Tensor

#: Cells of the shorter side in which the strength is averaged, before it is interpolated.
CELLS = 4
#: Least and most strength, of the mean.
LEAST, MOST = 0.05, 5.0


def strength(gradient: Tensor) -> Tensor:
    """Return the local root-mean-square of a gradient (B, C, H, W), of its mean: (B, 1, H, W)."""
    height, width = gradient.shape[2:]
    shorter = min(height, width)
    cells = max(1, round(CELLS * height / shorter)), max(1, round(CELLS * width / shorter))
    energy = F.adaptive_avg_pool2d(gradient.square().sum(1, keepdim=True), cells)
    energy = F.interpolate(energy, (height, width), mode="bicubic", align_corners=False)
    local = energy.clamp_min_(0).sqrt_()
    mean = local.mean((2, 3), keepdim=True).clamp_min_(torch.finfo(local.dtype).tiny)
    return local.div_(mean).clamp_(LEAST, MOST)


@dataclasses.dataclass(frozen=True)
class Focus:
    """The power for a batch; ``samples`` (B, 1, 1, 1) are those that have it, None if all do."""

    power: float
    samples: Tensor | None

    @classmethod
    def of(
        cls, power: float, objective: Objective, batch: int, device: torch.device
    ) -> Focus | None:
        """Return the focus for each sample's objective on classes, None if there is none."""
        if not power:
            return None
        found = [_has_class(objective.sliced(slice(i, i + 1))) for i in range(batch)]
        if not any(found):
            return None
        samples = torch.tensor(found, device=device).view(-1, 1, 1, 1)
        return cls(power, None if all(found) else samples)

    def __call__(self, gradient: Tensor) -> Tensor:
        """Return a gradient (B, C, H, W) times its local strength to the power."""
        factor = strength(gradient)
        factor = factor if self.power == 1 else factor**self.power
        return gradient * (factor if self.samples is None else factor.where(self.samples, 1))


def _has_class(objective: Objective) -> bool:
    return isinstance(objective, ClassLogit) or any(map(_has_class, objective.parts))


def applicable(focus: float | None, preset: float, param: Param) -> float:
    """Return the power for images of ``param``: if None, the preset's for those begun at noise.

    Raises
    ------
    FeatvizError
        If it is given for other than images (H, W).
    """
    if focus is None:
        return preset if fades(param) else 0.0
    if focus and len(param.shape) != 2:
        raise FeatvizError(f"focus is for images (H, W), not for size {param.shape}; use 0")
    return float(focus)
