"""Parameterizations that combine others: shared, masked, interpolated."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch

from featviz.errors import FeatvizError
from featviz.param.base import Param, check_unit_range
from featviz.param.fourier import Fourier
from featviz.resample import resize
from featviz.seeds import generator
from featviz.types import Self, State, Tensor


def join(parts: dict[str, State]) -> State:
    """Merge the states of several parts into one."""
    return {f"{part}.{name}": t for part, state in parts.items() for name, t in state.items()}


def part(state: State, name: str) -> State:
    """Return the state of the part ``name``."""
    return {n[len(name) + 1 :]: t for n, t in state.items() if n.startswith(f"{name}.")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrapped(Param):
    """A parameterization around ``inner``; size and channels given to either are those of both."""

    inner: Param = dataclasses.field(default_factory=Fourier)

    #: The fields that are parameterizations with a state of their own.
    parts: ClassVar[tuple[str, ...]] = ("inner",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("size", "channels"):
            own_value, inner_value = getattr(self, name), getattr(self.inner, name)
            if own_value is None and inner_value is not None:
                object.__setattr__(self, name, inner_value)
            elif own_value is not None and inner_value is None:
                inner = dataclasses.replace(self.inner, **{name: own_value})
                object.__setattr__(self, "inner", inner)
            elif own_value != inner_value:
                raise FeatvizError(
                    f"{type(self).__name__} has {name} {own_value}, but its inner "
                    f"{type(self.inner).__name__} {inner_value}: give one of them"
                )

    def sized(self, channels: int, size: tuple[int, ...]) -> Self:
        inner = self.inner.sized(channels, size)
        return dataclasses.replace(self, inner=inner, size=inner.size, channels=inner.channels)

    @property
    def starts_at_images(self) -> bool:
        return any(getattr(self, name).starts_at_images for name in self.parts)

    @property
    def fades(self) -> bool:  # type: ignore[override]
        return all(getattr(self, name).fades for name in self.parts)

    def project_(self, state: State) -> None:
        for name in self.parts:
            getattr(self, name).project_(part(state, name))

    def hold_(self, gradients: State, finest: float) -> None:
        for name in self.parts:
            getattr(self, name).hold_(part(gradients, name), finest)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masked(Wrapped):
    """Images that are free where ``mask`` is 1 and ``background`` where it is 0 (inpainting).

    ``background`` (1 or B, C, *size) in [0, 1]; ``mask`` broadcasts to it, values in [0, 1].
    """

    background: Tensor = dataclasses.field(compare=False, repr=False)
    mask: Tensor = dataclasses.field(compare=False, repr=False)

    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        expected = (self.channels, *self.shape)
        if tuple(self.background.shape[1:]) != expected:
            raise FeatvizError(
                f"background has shape {tuple(self.background.shape)}, not (B, {expected})"
            )
        check_unit_range(self.background, "background")
        try:
            torch.broadcast_shapes(self.mask.shape, self.background.shape)
        except RuntimeError:
            raise FeatvizError(
                f"mask {tuple(self.mask.shape)} does not fit {tuple(self.background.shape)}"
            ) from None
        return join({"inner": self.inner.init(seeds, device)})

    def image(self, state: State) -> Tensor:
        free = self.inner.image(part(state, "inner"))
        mask = self.mask.to(free.device, free.dtype)
        return self.background.to(free.device, free.dtype) * (1 - mask) + free * mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shared(Wrapped):
    """Images of a batch with a common component: each is one of ``inner`` plus one shared by all.

    The shared component is ``factor`` times coarser and is upsampled linearly; it is initialized
    with the first sample's seed, so that the images depend on one another. Combine it with
    :func:`featviz.alignment` or :func:`featviz.interpolate`. [Mordvintsev2018]_
    """

    relational = True
    factor: float = 8
    strength: float = 1.0

    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        small = tuple(max(1, round(side / self.factor)) for side in self.shape)
        noise = torch.randn(
            (1, self.channels or 1, *small), generator=generator(seeds[0], "shared")
        )
        common = (noise * 0.01).to(device).requires_grad_()
        return {**join({"inner": self.inner.init(seeds, device)}), "common": common}

    def image(self, state: State) -> Tensor:
        own = self.inner.image(part(state, "inner"))
        common = resize(state["common"], self.shape) * self.strength
        return torch.sigmoid(own.clamp(1e-4, 1 - 1e-4).logit() + common)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpolated(Wrapped):
    """The blend (1 - share) ``inner`` + share ``other`` of two parameterizations, both free."""

    other: Param
    share: float = 0.5

    parts: ClassVar = ("inner", "other")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise FeatvizError(f"share must be between 0 and 1, not {self.share}")

    def sized(self, channels: int, size: tuple[int, ...]) -> Self:
        sized = super().sized(channels, size)
        return dataclasses.replace(
            sized, other=self.other.sized(sized.channels or channels, sized.shape)
        )

    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        return join({p: getattr(self, p).init(seeds, device) for p in self.parts})

    def image(self, state: State) -> Tensor:
        first, second = (getattr(self, p).image(part(state, p)) for p in self.parts)
        return first.lerp(second, self.share)
