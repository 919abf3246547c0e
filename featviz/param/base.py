"""Parameterizations: maps from free parameters to images.

A parameterization is an immutable description (``Fourier(size=224, decay=1)``). What is optimized
is its *state*, a dictionary of tensors with the batch axis first, which :meth:`Param.init`
creates from one seed per sample; :meth:`Param.image` computes the images (B, C, *size) of a state.
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
from featviz.types import Self, Size, State, Tensor


def check_unit_range(images: Tensor, what: str) -> None:
    """Raise :class:`FeatvizError` unless ``images`` are floats in [0, 1], up to rounding."""
    if not images.is_floating_point():
        raise FeatvizError(f"{what} must be floats in [0, 1], not {images.dtype}: divide by 255")
    low, high = (float(value) for value in images.detach().aminmax())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise FeatvizError(f"{what} must be in [0, 1], not from {low:.3g} to {high:.3g}: scale it")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Param(abc.ABC):
    """A map from free parameters to images in the value range; see the module docstring.

    ``size`` and ``channels`` default to the model's.
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
        """The spatial size, (H, W) for images, once it is known."""
        if self.size is None:
            raise FeatvizError(f"{type(self).__name__} needs a size, such as size=224")
        return self.size  # type: ignore[return-value]

    @property
    def seen(self) -> tuple[int, ...]:
        """The spatial size of the output of :meth:`flatten`."""
        return self.shape

    def sized(self, channels: int, size: tuple[int, ...]) -> Self:
        """Return this parameterization with the size and channels filled in if they are not set."""
        return dataclasses.replace(self, channels=self.channels or channels, size=self.size or size)

    #: Whether the images of a batch depend on one another.
    relational = False
    #: Factor applied to the default learning rate.
    rate = 1.0
    #: Whether the images have one channel more than the network's input: their opacity.
    transparent = False
    #: Whether parameters that shrink take away what is in the image and leave a gray one, so that
    #: weight decay is of use.
    fades = False

    @property
    def starts_at_images(self) -> bool:
        """Whether the images begin at given ones, rather than at noise."""
        return getattr(self, "start", None) is not None

    @property
    def backdrop(self) -> Tensor | None:
        """Background of transparent images, (1 or B, C, *size); None if it is drawn at random."""
        return None

    @abc.abstractmethod
    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        """Return the free parameters of ``len(seeds)`` images; sample i depends on seed i."""

    @abc.abstractmethod
    def image(self, state: State) -> Tensor:
        """Return the images (B, C, *size) of a state, in the value range, differentiable."""

    def flatten(self, images: Tensor) -> Tensor:
        """Return the finished images as input of the network: (B, C, *size)."""
        return images

    def from_image(self, images: Tensor) -> Self:
        """Return this parameterization starting at ``images`` (B or 1, C, *size) in [0, 1].

        Raises
        ------
        FeatvizError
            If the images have a different size or channel count, or the map has no inverse.
        """
        name = type(self).__name__
        raise FeatvizError(f"{name} cannot start from an image exactly; use featviz.invert")

    def project_(self, state: State) -> None:  # noqa: B027
        """Project a state back onto the feasible set, in place; by default, do nothing."""

    def hold_(self, gradients: State, finest: float) -> None:  # noqa: B027
        """Zero the gradients of what is finer than ``finest`` cycles a pixel, in place.

        Called where the network sees images at less than their size, so that an optimizer which
        normalizes gradients does not enlarge what a filter leaves over. Parameterizations without
        frequencies do nothing.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorParam(Param):
    """A base for parameterizations by raw values, which are mapped to colours, then to the range.

    ``color`` correlates the channels: ``"imagenet"``, ``"none"``, a C x C matrix as nested
    tuples (divided by the norm of its largest column, so that contrasts do not depend on the units
    of the data), or ``"auto"``: ImageNet's for three channels and none for others. ``range`` bounds
    the values: ``"sigmoid"``, ``"tanh"``, ``"clamp"``, ``"none"``, or (low, high) for each
    channel. ``sd`` is the standard deviation of the initial noise, before the range is applied.
    """

    color: str | tuple[tuple[float, ...], ...] = "auto"
    range: _ranges.Spec = "sigmoid"
    sd: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        _ranges.get(self.range, self.channels)
        if self.channels is not None:
            _color.matrix(self.color, self.channels)
        if not self.sd >= 0:
            raise FeatvizError(f"sd must not be negative, not {self.sd}")

    def color_matrix(self) -> _color.Matrix | str:
        """Return the colour correlation: a matrix, or the name of one."""
        return self.color

    def finish(self, raw: Tensor) -> Tensor:
        """Map raw values (B, C, *size) of unit scale to images."""
        matrix = _color.matrix(self.color_matrix(), self._channels(), device=raw.device)
        raw = _color.apply(matrix, raw)
        return _ranges.get(self.range, self.channels).forward(raw)

    def unfinish(self, images: Tensor) -> Tensor:
        """Invert :meth:`finish`."""
        raw = _ranges.get(self.range, self.channels).inverse(images)
        matrix = _color.matrix(
            self.color_matrix(), self._channels(), inverse=True, device=raw.device
        )
        return _color.apply(matrix, raw)

    def _channels(self) -> int:
        if self.channels is None:
            raise FeatvizError(f"{type(self).__name__} needs a number of channels")
        return self.channels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Basis(ColorParam):
    """Raw values that are an invertible linear map of the free parameters."""

    start: Tensor | None = dataclasses.field(default=None, compare=False, repr=False)

    @abc.abstractmethod
    def synthesize(self, state: State) -> Tensor:
        """Map the free parameters to raw values (B, C, *size) of unit scale."""

    @abc.abstractmethod
    def analyze(self, raw: Tensor) -> State:
        """Invert :meth:`synthesize`."""

    @abc.abstractmethod
    def scatter(self, noise: Tensor) -> State:
        """Return the initial state for white noise (B, C, *size)."""

    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        if self.start is None:
            shape = (self._channels(), *self.shape)
            noise = [torch.randn(shape, generator=generator(s, "param")) for s in seeds]
            state = self.scatter(torch.stack(noise) * self.sd)
        else:
            if len(self.start) not in (1, len(seeds)):
                raise FeatvizError(f"{len(self.start)} starting images for {len(seeds)} samples")
            raw = self.unfinish(self.start.float())
            state = self.analyze(raw.expand(len(seeds), *raw.shape[1:]))
        return {name: t.clone().to(device).requires_grad_() for name, t in state.items()}

    def image(self, state: State) -> Tensor:
        return self.finish(self.synthesize(state))

    def from_image(self, images: Tensor) -> Self:
        if images.ndim < 3 or not images.is_floating_point():
            raise FeatvizError(
                f"from_image takes float images (B, C, *size), not {tuple(images.shape)}"
            )
        if images.ndim == 3 and self.size is None and self.channels is None:
            first, channels = images.shape[:2]
            if first in (1, 3, 4) and channels > 4:  # (C, H, W), not that many signals
                raise FeatvizError(
                    f"from_image takes images (B, C, *size): give image[None] for one picture of "
                    f"shape {tuple(images.shape)}, or channels={channels} for signals (B, C, L)"
                )
        if self.range in ("sigmoid", "clamp"):
            check_unit_range(images, "from_image: images")
        if self.channels not in (None, images.shape[1]):
            raise FeatvizError(f"image has {images.shape[1]} channels, not {self.channels}")
        if self.size is not None and tuple(images.shape[2:]) != self.shape:
            raise FeatvizError(f"image has size {tuple(images.shape[2:])}, not {self.shape}")
        start = images.detach().cpu()
        return dataclasses.replace(
            self, size=tuple(images.shape[2:]), channels=images.shape[1], start=start
        )
