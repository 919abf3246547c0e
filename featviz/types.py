"""The few type names that the signatures share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch

try:
    from typing import Self as Self
    from typing import Unpack as Unpack
except ImportError:  # Python 3.10
    from typing_extensions import Self as Self
    from typing_extensions import Unpack as Unpack

Tensor: TypeAlias = torch.Tensor
#: The free parameters of an image: leaf tensors by name, the sample first, as (B, ...).
State: TypeAlias = dict[str, Tensor]
#: One side for a square image, or every side: (W,), (H, W) or (D, H, W).
Size: TypeAlias = int | tuple[int, ...]
#: One seed for the first sample (sample i then uses seed + i), or one for each.
Seed: TypeAlias = int | Sequence[int]
Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
#: A ``torch.optim`` class, or anything that makes an optimizer of a list of tensors.
OptimizerFactory: TypeAlias = Callable[[list[Tensor]], torch.optim.Optimizer]
#: The progress of the run, from 0 (first step) to 1 (last), to a factor of the learning rate.
Schedule: TypeAlias = Callable[[float], float]


@dataclasses.dataclass(frozen=True)
class LayerInfo:
    """One layer, as a probing pass found it.

    ``shape`` is the output's for one sample (the batch axis is left out), ``axis`` the axis of
    the units in the whole activation (the batch is axis 0), ``units`` how many there are,
    ``calls`` how often the module runs in one forward pass.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    axis: int
    units: int
    calls: int = 1

    @property
    def positions(self) -> tuple[int, ...]:
        """The shape without its unit axis: (H, W) of a feature map, (N,) of tokens, ()."""
        return self.shape[: self.axis - 1] + self.shape[self.axis :]
