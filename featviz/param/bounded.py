"""Pictures that start at given ones: within an exact ball around them, or free."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.param.base import Param
from featviz.types import State, Tensor

NORMS = ("linf", "l2", "l1")


def project(delta: Tensor, norm: str, eps: float) -> Tensor:
    """Return the nearest point of each sample's ball of radius ``eps`` to ``delta`` (B, …).

    Nearest in the Euclidean sense; for L1 by the sorting algorithm of [Duchi2008]_, Figure 1.
    """
    flat = delta.flatten(1)
    if norm == "linf":
        return delta.clamp(-eps, eps)
    if norm == "l2":
        size = flat.norm(dim=1, keepdim=True)
        return (flat * (eps / size.clamp_min(eps))).view_as(delta)
    size = flat.abs()
    ordered = size.sort(dim=1, descending=True).values
    count = torch.arange(1, size.shape[1] + 1, device=delta.device)
    excess = (ordered.cumsum(1) - eps) / count
    last = (ordered > excess).sum(1, keepdim=True) - 1
    threshold = excess.gather(1, last).clamp_min(0)
    inside = size.sum(1, keepdim=True) <= eps
    cut = flat.sign() * (size - threshold).clamp_min(0)
    return torch.where(inside, flat, cut).view_as(delta)


def _fit(param: Param, images: object) -> None:
    """Take size and channels from the images; raise :class:`FeatvizError` where they differ."""
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
    """Pictures no further than ``eps`` from ``images``, in [0, 1]: an attack's parameterization.

    ``norm`` is ``linf``, ``l2`` or ``l1``, ``eps`` in image units. The state is the difference,
    which starts at zero; :meth:`project_` moves it back into the ball and into [0, 1] after each
    step.
    """

    images: Tensor = dataclasses.field(compare=False, repr=False)
    eps: float
    norm: str = "linf"

    def __post_init__(self) -> None:
        _fit(self, self.images)
        if self.norm not in NORMS:
            raise FeatvizError(f"no norm {self.norm!r}: it is {', '.join(NORMS)}")
        if not 0 < self.eps < float("inf"):
            raise FeatvizError(f"eps must be positive, not {self.eps}")

    def _centre(self, batch: int, device: torch.device) -> Tensor:
        if len(self.images) not in (1, batch):
            raise FeatvizError(f"{len(self.images)} images for {batch} samples")
        return self.images.detach().to(device).expand(batch, *self.images.shape[1:])

    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        delta = torch.zeros_like(self._centre(len(seeds), torch.device(device)))
        return {"delta": delta.contiguous().requires_grad_()}

    def image(self, state: State) -> Tensor:
        delta = state["delta"]
        return self._centre(len(delta), delta.device) + delta

    def project_(self, state: State) -> None:
        delta = state["delta"]
        centre = self._centre(len(delta), delta.device)
        # Clipping to [0, 1] brings every value nearer to the centre: it stays in the ball.
        inside = centre + project(delta, self.norm, self.eps)
        delta.copy_(inside.clamp(0, 1) - centre)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canvas(Param):
    """The picture itself, starting at ``images`` (1 or B, C, *size): a step changes its pixels.

    No prior, no colour space and no copy: a dream's parameterization. What a step moves out of
    [0, 1] is moved back.
    """

    images: Tensor = dataclasses.field(compare=False, repr=False)

    def __post_init__(self) -> None:
        _fit(self, self.images)

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
