"""What a transform is: a few floats drawn for each sample and step, and a map that uses them.

All draws are made before the first step, on the CPU, from one generator a sample: the *tape*
(steps, B, k). An image therefore has the same augmentations alone, in a batch, on another
device or after a restart, and the loop draws nothing.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import torch

from featviz.types import Tensor

#: Maps the images (B, C, *size) of step t.
Apply: TypeAlias = Callable[[Tensor, int], Tensor]


@dataclasses.dataclass(frozen=True)
class Transform(abc.ABC):
    """A random change of the image between two steps; instances are settings, without state."""

    @abc.abstractmethod
    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        """Return the floats (steps, k) of one sample for images of ``size``."""

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the size of what comes out for images of ``size``."""
        return size


@dataclasses.dataclass(frozen=True)
class Intensity(Transform):
    """A transform of the values, each pixel where it is."""

    @abc.abstractmethod
    def prepare(self, tape: Tensor) -> Apply:
        """Return the map for a tape (steps, B, k)."""


@dataclasses.dataclass(frozen=True)
class Geometric(Transform):
    """A transform that moves points; those that stand side by side make one warp."""

    @abc.abstractmethod
    def matrices(self, tape: Tensor, size: tuple[int, ...]) -> Tensor:
        """Return (..., n + 1, n + 1): where a point goes, x first, in pixels from the centre."""
