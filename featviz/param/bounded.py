"""Images that start at given ones: within an exact ball around them, or unconstrained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from featviz.errors import FeatvizError
from featviz.param.balls import NORMS, project, quantize, sample
from featviz.param.base import Param
from featviz.seeds import generator
from featviz.types import State, Tensor

STARTS = ("zero", "uniform")


class _StraightThrough(torch.autograd.Function):
    """Return ``exact``; pass the gradient straight through to ``raw``, before rounding."""

    @staticmethod
    def forward(context: Any, raw: Tensor, exact: Tensor) -> Tensor:
        return exact

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def fit(param: Param, images: object) -> None:
    """Set size and channels from the images; raise :class:`FeatvizError` if they conflict."""
    if not isinstance(images, torch.Tensor) or images.ndim < 3 or not images.is_floating_point():
        raise FeatvizError(f"{type(param).__name__} takes float images (B, C, *size)")
    if param.channels not in (None, images.shape[1]):
        raise FeatvizError(f"images have {images.shape[1]} channels, not {param.channels}")
    if isinstance(param.size, int):
        object.__setattr__(param, "size", (param.size, param.size))
    if param.size not in (None, tuple(images.shape[2:])):
        raise FeatvizError(f"images have size {tuple(images.shape[2:])}, not {param.size}")
    object.__setattr__(param, "channels", images.shape[1])
    object.__setattr__(param, "size", tuple(images.shape[2:]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounded(Param):
    """Images within distance ``eps`` of ``images`` and in [0, 1]: the parameterization of attacks.

    ``norm`` is ``linf``, ``l2`` or ``l1``, ``eps`` in image units, a number or one per sample. The
    state is the perturbation, initialized to ``zero`` or ``uniform``, which is drawn from the ball
    with the sample's seed; :meth:`project_` moves it back into the ball and [0, 1] after each step.

    ``eight_bit`` restricts images to those that an 8-bit file can store, rounding ``images`` as
    well: the network sees nothing else, and gradients pass straight through the rounding.

    With ``shared`` all images have the same perturbation, clipped to [0, 1] with each of them.
    """

    images: Tensor = dataclasses.field(compare=False, repr=False)
    eps: float | tuple[float, ...]
    norm: str = "linf"
    start: str = "zero"
    eight_bit: bool = False
    shared: bool = False

    def __post_init__(self) -> None:
        fit(self, self.images)
        if self.norm not in NORMS:
            raise FeatvizError(f"no norm {self.norm!r}; known: {', '.join(NORMS)}")
        radii = self.eps if isinstance(self.eps, tuple) else (self.eps,)
        invalid = [e for e in radii if not 0 < e < float("inf")]
        if invalid or not radii:
            raise FeatvizError(f"eps must be positive, not {invalid[0] if invalid else self.eps}")
        if self.start not in STARTS:
            raise FeatvizError(f"no start {self.start!r}; known: {', '.join(STARTS)}")

    @property
    def relational(self) -> bool:  # type: ignore[override]
        return self.shared

    def _centre(self, batch: int, device: torch.device) -> Tensor:
        if len(self.images) not in (1, batch):
            raise FeatvizError(f"{len(self.images)} images for {batch} samples")
        images = self.images.detach().to(device)
        images = (images * 255).round() / 255 if self.eight_bit else images
        return images.expand(batch, *self.images.shape[1:])

    def _radius(self, batch: int, device: torch.device) -> Tensor:
        radius = torch.tensor(self.eps, device=device).reshape(-1)
        if len(radius) not in (1, batch):
            raise FeatvizError(f"{len(radius)} values of eps for {batch} samples")
        return radius

    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        delta = torch.zeros_like(self._centre(len(seeds), torch.device(device)))
        if self.shared:
            delta, seeds = delta[:1], seeds[:1]
        if self.start == "uniform":
            shape = tuple(self.images.shape[1:])
            points = [sample(generator(s, "ball"), self.norm, shape) for s in seeds]
            radius = self._radius(len(seeds), delta.device)
            radius = radius.view(-1, *(1,) * len(shape))
            delta = self.nearest(torch.stack(points).to(delta) * radius)
        return {"delta": delta.contiguous().requires_grad_()}

    def image(self, state: State) -> Tensor:
        delta = state["delta"]
        centre = self._centre(len(self.images) if self.shared else len(delta), delta.device)
        raw = centre + delta
        if self.shared:
            raw = raw.clamp(0, 1)
        if not self.eight_bit:
            return raw
        radius = self._radius(len(delta), delta.device)
        levels = quantize(delta, self.norm, radius) + (centre * 255).round()
        images: Tensor = _StraightThrough.apply(raw, (levels.clamp(0, 255) / 255).to(raw))
        return images

    def nearest(self, delta: Tensor) -> Tensor:
        """Return perturbations (B, C, *size) projected onto the ball and, unless shared, [0, 1]."""
        projected = project(delta, self.norm, self._radius(len(delta), delta.device))
        if self.shared:
            return projected
        centre = self._centre(len(delta), delta.device)
        # Clipping to [0, 1] moves every value closer to the centre, so it stays in the ball.
        projected = centre + projected
        return projected.clamp(0, 1) - centre

    def project_(self, state: State) -> None:
        state["delta"].copy_(self.nearest(state["delta"]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canvas(Param):
    """The image itself, starting at ``images`` (1 or B, C, *size): steps change pixels directly.

    No prior, no colour space and no copy: the parameterization of dreams. Values that a step moves
    out of [0, 1] are clamped.
    """

    starts_at_images = True
    images: Tensor = dataclasses.field(compare=False, repr=False)

    def __post_init__(self) -> None:
        fit(self, self.images)

    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        if len(self.images) not in (1, len(seeds)):
            raise FeatvizError(f"{len(self.images)} images for {len(seeds)} samples")
        shape = (len(seeds), *self.images.shape[1:])
        pixels = torch.empty(shape, device=device).copy_(self.images)
        return {"pixels": pixels.requires_grad_()}

    def image(self, state: State) -> Tensor:
        return state["pixels"]

    def project_(self, state: State) -> None:
        state["pixels"].clamp_(0, 1)
