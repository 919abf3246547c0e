"""Transforms: a few floats drawn for each sample and step, and a map that uses them.

All floats are drawn before the first step, on the CPU, from one generator per sample: the *tape*
(steps, B, k). An image therefore has the same augmentations alone, in a batch, on another device
or after resuming, and the loop draws nothing.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import torch

from featviz.types import Tensor

#: Transforms the images (B, C, *size) of a step.
Apply: TypeAlias = Callable[[Tensor, int], Tensor]


@dataclasses.dataclass(frozen=True)
class Transform(abc.ABC):
    """A random change of the images at each step; instances are settings, without state."""

    @abc.abstractmethod
    def draw(self, generator: torch.Generator, steps: int, size: tuple[int, ...]) -> Tensor:
        """Return the floats (steps, k) of one sample for images of ``size``."""

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the size of the output for images of ``size``."""
        return size


@dataclasses.dataclass(frozen=True)
class Intensity(Transform):
    """A transform of the images that is applied on its own, not fused into a warp."""

    @abc.abstractmethod
    def prepare(self, tape: Tensor) -> Apply:
        """Return the map for a tape (steps, B, k)."""


@dataclasses.dataclass(frozen=True)
class Geometric(Transform):
    """A transform that moves points; adjacent ones are fused into one warp."""

    @abc.abstractmethod
    def matrices(self, tape: Tensor, size: tuple[int, ...]) -> Tensor:
        """Return the matrices (..., n + 1, n + 1) that map points.

        Coordinates are in pixels from the centre, x first.
        """
