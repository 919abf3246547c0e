"""Whether a map stays the same where the network's answer does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from featviz.attribution.api import attribute
from featviz.attribution.measures.heat_statistics import distance
from featviz.attribution.result import Attribution
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.seeds import expand, generator
from featviz.types import Seed, Tensor
from featviz.validation import positive_int


@dataclasses.dataclass(frozen=True)
class Stability:
    """How much maps change with the image.

    Attributes
    ----------
    sensitivity_max
        (B,): the largest ‖h(x') - h(x)‖ / ‖h(x)‖ over images x' near x. [Yeh2019]_
    continuity
        (B,): the largest ‖h(x') - h(x)‖₁ / ‖x' - x‖₂, the heat divided by its own L1 norm so that
        units do not count. [Montavon2018]_
    """

    sensitivity_max: Tensor
    continuity: Tensor


def stability(
    model: Model,
    images: Tensor,
    objective: Objective | str | Sequence[Objective | str],
    *,
    samples: int = 4,
    radius: float = 0.02,
    result: Attribution | None = None,
    seed: Seed = 0,
    **options: Any,
) -> Stability:
    """Return how much the maps of ``images`` (B, C, *size) change under small noise.

    Each image gets ``samples`` neighbours, uniformly within ``radius`` of each value and clipped to
    [0, 1]; they are explained with the image's own seed, so that noise of the method does not
    count. ``options`` are those of :func:`featviz.attribute`; ``result`` is what it returned for
    the images, if it is there already.

    Raises
    ------
    FeatvizError
        For a radius that is not positive, ``samples`` below 1, or as :func:`featviz.attribute`.
    """
    positive_int("samples", samples)
    if not radius > 0:
        raise FeatvizError(f"radius must be positive, not {radius}")
    seeds = expand(seed, len(images))
    rngs = [generator(s, "stability") for s in seeds]
    if result is None:
        result = attribute(model, images, objective, seed=seeds, **options)
    own = result.pixels.double().flatten(1)
    relative, continuous = [], []
    for _ in range(samples):
        noise = torch.stack([2 * torch.rand(images.shape[1:], generator=r) - 1 for r in rngs])
        near = (images + radius * noise.to(images)).clamp(0, 1)
        maps = attribute(model, near, objective, seed=seeds, **options).pixels.double().flatten(1)
        relative.append((maps - own).norm(dim=1) / own.norm(dim=1))
        moved = (near - images).double().flatten(1).norm(dim=1).cpu()
        continuous.append((maps - own).norm(p=1, dim=1) / own.norm(p=1, dim=1) / moved)
    return Stability(torch.stack(relative).amax(0), torch.stack(continuous).amax(0))


def input_invariance(
    model: Model,
    images: Tensor,
    objective: Objective | str | Sequence[Objective | str],
    *,
    shift: float = 0.3,
    seed: Seed = 0,
    **options: Any,
) -> Tensor:
    """Return how far maps (B,) move under a constant shift of the input that changes nothing else.

    Both networks compute the same on their images: x, scaled into [0, 1 - shift], and x + shift
    with a preprocessing that subtracts the shift. A method that explains the network and not the
    pixel values gives the same map, and 0 here; the value is the L2 distance of the maps, each
    divided by its norm. Baselines are not shifted. [Kindermans2019]_

    Raises
    ------
    FeatvizError
        If the shift is not between 0 and 1, or as :func:`featviz.attribute`.
    """
    if not 0 < shift < 1:
        raise FeatvizError(f"shift must be between 0 and 1, not {shift}")
    shifted = model.copy()
    low_end, high_end = model.range
    shifted.mean = tuple(m + shift * (high_end - low_end) for m in model.mean)
    darker = images * (1 - shift)
    before = attribute(model, darker, objective, seed=seed, **options)
    after = attribute(shifted, darker + shift, objective, seed=seed, **options)
    return distance(before.pixels, after.pixels)
