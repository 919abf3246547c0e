"""What the network sees of the images in each part of a run: half their size first, then all.

A class is recognized in an image of half the size as well, and there an object fills the receptive
fields that would otherwise hold a part of it: shapes come first, and at the full size what is on
them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.objectives.scene import Target
from featviz.optim.gradient_evaluator import GradientEvaluator
from featviz.optim.network_noise import NoiseTape, network_transforms
from featviz.optim.tiling import tile_count
from featviz.optim.tracing import PAYS, TraceCache
from featviz.param import Param
from featviz.resample import resize
from featviz.transforms import Backdrop, Paste, Transform, output_size, prepare
from featviz.types import Tensor

#: The shortest side that is halved: below, classes are hardly recognized.
SMALLEST = 64
#: Pixels to a position of layers that respond to shapes rather than textures.
STRIDE = 16


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the network sees of images during some of the steps.

    ``size`` is that of the images at this stage, ``transform`` maps them and the index of a random
    draw to the network's input, ``noise`` is that in the network, and ``evaluator`` computes the
    scores and gradients.
    """

    size: tuple[int, ...]
    transform: Callable[[Tensor, int], Tensor]
    noise: NoiseTape | None
    evaluator: GradientEvaluator

    def shown(self, images: Tensor) -> Tensor:
        """Return the images (B, C, *size) at the size of the stage, filtered if it is smaller."""
        return resize(images, self.size, antialias=True)

    def finest(self, size: tuple[int, ...]) -> float:
        """Return the highest frequency of images of ``size`` that is seen, in cycles a pixel."""
        return 0.5 * min(own / full for own, full in zip(self.size, size, strict=True))


def make_stage(
    model: Model,
    evaluator: Callable[..., GradientEvaluator],
    transforms: Sequence[Transform],
    seeds: Sequence[int],
    draws: int,
    size: tuple[int, ...],
    steps: int,
    *,
    tile: int | None,
    compiled: bool,
    prior: float,
    traced: bool,
    traces: TraceCache,
) -> Stage:
    """Return the stage of ``steps`` steps at ``size``, whose transforms have ``draws`` draws.

    ``evaluator`` makes the evaluator of a size; the network is traced if that pays.
    """
    seen = output_size(transforms, size)
    noises = network_transforms(transforms)
    noise = None
    if noises:
        one = tuple(min(side, tile or side) for side in seen)
        noise = NoiseTape(noises, model, one, draws, traces)
    return Stage(
        size=size,
        transform=prepare(transforms, seeds, draws, size, model.device),
        noise=noise,
        evaluator=evaluator(
            seen,
            traced=traced or steps * tile_count(seen, tile) >= PAYS,
            compiled=compiled,
            traces=traces,
            noise=None if noise is None else noise.noise,
            prior=prior,
        ),
    )


def half(size: tuple[int, ...]) -> tuple[int, ...]:
    """Return half of a size, rounded up."""
    return tuple(-(-side // 2) for side in size)


def gains(objective: Objective, model: Model, size: tuple[int, ...]) -> bool:
    """Return whether images of ``size`` for an objective begin at half of it.

    The objective has to mean the same there, and to be about shapes: classes, and layers with at
    most one position for every 16 pixels. A texture of an earlier layer would have to be made anew.
    """
    if not objective.scalable:
        return False
    try:
        objective.bind(Target(model, half(size), 1))
    except FeatvizError:  # a direction over a whole activation
        return False
    maps = [model.layer(name, size).positions for name in objective.layers if name != "output"]
    return all(STRIDE * max(grid, default=0) <= max(size) for grid in maps)


def applicable(
    coarse: float | None,
    preset: float,
    model: Model,
    param: Param,
    transforms: Sequence[Transform],
) -> float:
    """Return the share of the steps at half the size: the preset's where that is possible, if None.

    Raises
    ------
    FeatvizError
        If a share is given and the network does not take half the size.
    """
    if coarse == 0 or (coarse is None and preset == 0):
        return 0.0
    why = _why_not(model, param, transforms)
    if coarse is None:
        return 0.0 if why else preset
    if why:
        raise FeatvizError(f"coarse={coarse:g} is not possible: {why}; use 0")
    return float(coarse)


def _why_not(model: Model, param: Param, transforms: Sequence[Transform]) -> str | None:
    small = half(param.shape)
    if len(small) != 2 or min(small) < SMALLEST:
        return f"it halves images of at least {2 * SMALLEST} px, not {param.shape}"
    if param.transparent or any(isinstance(t, (Paste, Backdrop)) for t in transforms):
        return "the image is laid on another one"
    if param.starts_at_images:
        return "the image starts at a given one"
    if output_size(transforms, param.shape) != param.shape:
        return "the transforms change the size"
    if not model.takes(small):
        return f"the network does not take images of {small}"
    return None
