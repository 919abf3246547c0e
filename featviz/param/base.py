"""What a parameterization is: a map from free parameters to an image.

A parameterization is an immutable description (``Fourier(size=224, decay=1)``). What is
optimized is its *state*, a dictionary of tensors with the sample first, which :meth:`Param.init`
makes from one seed a sample; :meth:`Param.image` draws the images (B, C, *size) of a state.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.param import color as _color
from featviz.param import ranges as _ranges
from featviz.seeds import generator
from featviz.types import Size, State, Tensor

try:
    from typing import Self
except ImportError:  # Python 3.10
    from typing_extensions import Self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Param(abc.ABC):
    """A map from free parameters to images in the value range; see the module's text.

    ``size`` and ``channels`` are taken from the model where they are left open.
    """

    size: Size | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.size, int) and not isinstance(self.size, bool):
            object.__setattr__(self, "size", (self.size, self.size))
        if self.size is not None and (not self.size or min(self.shape) < 1):
            raise FeatvizError(f"size must be positive, not {self.size}")
        if self.channels is not None and self.channels < 1:
            raise FeatvizError(f"channels must be positive, not {self.channels}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The spatial size, (H, W) for pictures, once it is known."""
        if self.size is None:
            raise FeatvizError(f"{type(self).__name__} needs a size, such as size=224")
        return self.size  # type: ignore[return-value]

    def sized(self, channels: int, size: tuple[int, ...]) -> Self:
        """Return this parameterization with what was left open filled in."""
        return dataclasses.replace(self, channels=self.channels or channels, size=self.size or size)

    @abc.abstractmethod
    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        """Return the free parameters of ``len(seeds)`` pictures; sample i depends on seed i."""

    @abc.abstractmethod
    def image(self, state: State) -> Tensor:
        """Return the images (B, C, *size) of a state, in the value range, differentiable."""

    @abc.abstractmethod
    def from_image(self, images: Tensor) -> Self:
        """Return this parameterization starting at ``images`` (B or 1, C, *size) in [0, 1]."""

    def project_(self, state: State) -> None:  # noqa: B027
        """Move a state that left the allowed set back into it, in place; nothing by default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorParam(Param):
    """Basis, then colour, then range: what all the direct image parameterizations share.

    ``color`` correlates the channels: ``"imagenet"``, ``"none"``, a C x C matrix as nested
    tuples, or ``"auto"``: ImageNet's for three channels and none for others. ``range`` bounds
    the values: ``"sigmoid"`` or ``"clamp"``. ``sd`` is the deviation of the starting noise,
    before the range.
    """

    color: str | tuple[tuple[float, ...], ...] = "auto"
    range: str = "sigmoid"
    sd: float = 0.01
    start: Tensor | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ranges.get(self.range)
        if self.channels is not None:
            _color.matrix(self.color, self.channels)
        if not self.sd >= 0:
            raise FeatvizError(f"sd must not be negative, not {self.sd}")

    @abc.abstractmethod
    def _synthesize(self, state: State) -> Tensor:
        """Map the free parameters to raw values (B, C, *size) of unit order."""

    @abc.abstractmethod
    def _analyze(self, raw: Tensor) -> State:
        """Invert :meth:`_synthesize`."""

    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        channels = self._channels()
        if self.start is None:
            shape = (channels, *self.shape)
            noise = [torch.randn(shape, generator=generator(s, "param")) for s in seeds]
            state = self._noise(torch.stack(noise) * self.sd)
        else:
            if len(self.start) not in (1, len(seeds)):
                raise FeatvizError(f"{len(self.start)} starting images for {len(seeds)} samples")
            raw = _ranges.get(self.range).inverse(self.start.float())
            raw = _color.apply(_color.matrix(self.color, channels, inverse=True), raw)
            state = self._analyze(raw.expand(len(seeds), *raw.shape[1:]))
        return {name: t.clone().to(device).requires_grad_() for name, t in state.items()}

    def _noise(self, noise: Tensor) -> State:
        """Make the starting state of white noise (B, C, *size) of deviation ``sd``."""
        return {"pixels": noise}

    def image(self, state: State) -> Tensor:
        raw = self._synthesize(state)
        raw = _color.apply(_color.matrix(self.color, self._channels(), device=raw.device), raw)
        return _ranges.get(self.range).forward(raw)

    def from_image(self, images: Tensor) -> Self:
        if images.ndim < 3 or not images.is_floating_point():
            raise FeatvizError(
                f"from_image takes float images (B, C, *size), not {tuple(images.shape)}"
            )
        if self.channels not in (None, images.shape[1]):
            raise FeatvizError(f"image has {images.shape[1]} channels, not {self.channels}")
        if self.size is not None and tuple(images.shape[2:]) != self.shape:
            raise FeatvizError(f"image has size {tuple(images.shape[2:])}, not {self.shape}")
        start = images.detach().cpu()
        return dataclasses.replace(
            self, size=tuple(images.shape[2:]), channels=images.shape[1], start=start
        )

    def _channels(self) -> int:
        if self.channels is None:
            raise FeatvizError(f"{type(self).__name__} needs a number of channels")
        return self.channels
