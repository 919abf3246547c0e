"""Generator latents: images are the output of a generator network for latent vectors."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from featviz.errors import FeatvizError, did_you_mean
from featviz.param.base import Param
from featviz.resample import resize
from featviz.seeds import generator as seeded_generator
from featviz.types import State, Tensor

PRIORS = ("none", "sphere", "truncate")
#: Calls a generator: (network, latent (B, *latent), one-hot label (B, K) or None) -> images.
Call = Callable[[nn.Module, Tensor, "Tensor | None"], Any]


def plain_call(net: nn.Module, latent: Tensor, label: Tensor | None) -> Any:
    """Call ``net(latent)``, or ``net(latent, label)`` where there is a label."""
    return net(latent) if label is None else net(latent, label)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latent(Param):
    """Images of a generator; the state is its latent ``z`` (B, *latent), standard normal.

    The image stays on the generator's manifold whatever the objective. [Nguyen2016]_

    Parameters
    ----------
    generator
        Any module that maps latents to images (B, C, *size). It is copied, set to eval mode, and
        frozen.
    latent
        The shape of one latent, such as (100, 1, 1).
    output
        The generator's values for black and white: (-1, 1) after a tanh.
    classes, label
        The names of its classes, and the one to generate, as a name or an index; the generator
        then receives a one-hot vector (B, K) as its second argument.
    prior
        The constraint that :meth:`project_` applies to latents: ``sphere`` of radius √n, where
        nearly all the mass of the normal distribution is; ``truncate`` to ±``truncation``; or
        ``none``.
    call
        How to call the generator, if not as ``generator(z)`` or ``generator(z, label)``: BigGAN's
        ``lambda net, z, y: net(z, y, 0.4)``, a mapping network's
        ``lambda net, z, y: net.synthesis(net.mapping(z))``, or a decoder's
        ``lambda net, z, y: net.decode(z).sample``.
    name
        Its name on the command line, as in ``gan:faces``.

    Raises
    ------
    FeatvizError
        For an unknown class or prior; when used, if the generator does not accept such latents or
        does not return images.
    """

    generator: nn.Module = dataclasses.field(compare=False, repr=False)
    latent: tuple[int, ...]
    output: tuple[float, float] = (-1.0, 1.0)
    classes: tuple[str, ...] = ()
    label: str | int | None = None
    prior: str = "sphere"
    truncation: float = 2.0
    call: Call = plain_call
    name: str | None = None
    start: Tensor | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior not in PRIORS:
            raise FeatvizError(f"no prior {self.prior!r}; known: {', '.join(PRIORS)}")
        if not self.output[0] < self.output[1]:
            raise FeatvizError(f"output needs (low, high) with low < high, not {self.output}")
        if not self.truncation > 0:
            raise FeatvizError(f"truncation must be positive, not {self.truncation}")
        self._label_index()
        frozen = copy.deepcopy(self.generator).eval().requires_grad_(False)
        object.__setattr__(self, "_nets", {torch.device("cpu"): frozen})

    def _label_index(self) -> int | None:
        if self.label is None:
            return 0 if self.classes else None
        if isinstance(self.label, int) or str(self.label).isdigit():
            index = int(self.label)
        elif self.label in self.classes:
            index = self.classes.index(self.label)
        else:
            raise FeatvizError(
                f"generator has no class {self.label!r}{did_you_mean(self.label, self.classes)}"
            )
        if not 0 <= index < len(self.classes):
            raise FeatvizError(f"no class {index}: the generator has {len(self.classes)}")
        return index

    def draw(self, latents: Tensor) -> Tensor:
        """Return the generator's images (B, C, *size) of latents, in [0, 1], at its own size."""
        nets: dict[torch.device, nn.Module] = self._nets  # type: ignore[attr-defined]
        device = latents.device
        if device not in nets:
            nets[device] = copy.deepcopy(nets[torch.device("cpu")]).to(device)
        index, label = self._label_index(), None
        if index is not None:
            label = torch.zeros(len(latents), len(self.classes), device=device)
            label[:, index] = 1
        try:
            images = self.call(nets[device], latents, label)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            reason = " ".join(str(error).split())[:160]
            raise FeatvizError(
                f"the generator does not accept latents of shape {tuple(latents.shape)}: {reason}"
            ) from error
        if not isinstance(images, torch.Tensor) or images.ndim < 3 or len(images) != len(latents):
            shape = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images)
            raise FeatvizError(f"the generator returned {shape}, not images (B, C, *size)")
        low, high = self.output
        return ((images - low) / (high - low)).clamp(0, 1)

    def init(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> State:
        if self.start is not None:
            if len(self.start) not in (1, len(seeds)):
                raise FeatvizError(f"{len(self.start)} starting latents for {len(seeds)} samples")
            z = self.start.expand(len(seeds), *self.latent).clone()
        else:
            z = torch.stack(
                [torch.randn(self.latent, generator=seeded_generator(s, "param")) for s in seeds]
            )
        with torch.no_grad():
            shape = self.draw(z[:1]).shape
        if self.channels not in (None, shape[1]):
            raise FeatvizError(f"the generator returns {shape[1]} channels, not {self.channels}")
        state = {"z": z.to(device)}
        self.project_(state)
        return {"z": state["z"].requires_grad_()}

    def image(self, state: State) -> Tensor:
        return resize(self.draw(state["z"]), self.shape)

    def project_(self, state: State) -> None:
        z = state["z"]
        if self.prior == "sphere":
            norms = z.flatten(1).norm(dim=1).clamp_min(1e-12)
            radius = math.sqrt(math.prod(self.latent))
            z.mul_((radius / norms).view(-1, *(1,) * (z.ndim - 1)))
        elif self.prior == "truncate":
            z.clamp_(-self.truncation, self.truncation)
