"""DeepDream: enhance in a picture what a network sees in it, from coarse to fine."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from featviz._version import __version__
from featviz.dreaming.defaults import dream_objective
from featviz.errors import FeatvizError, FeatvizWarning, ModelError
from featviz.io.inputs import ImageLike, read, read_mask
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives.reference import Picture
from featviz.optim.callbacks import Callback, Progress, Step
from featviz.optim.loop import optimize
from featviz.optim.optimizers import normalized
from featviz.optim.result import Result
from featviz.optim.tiling import check as check_tile
from featviz.param import Canvas, Masked, Param
from featviz.resample import resize
from featviz.seeds import expand
from featviz.transforms import Roll
from featviz.types import Precision, Schedule, Seed, Tensor
from featviz.validation import positive_int

#: The smallest side of an octave, in pixels.
SMALLEST = 4
#: The weights of red, green and blue in luminance (ITU-R BT.709).
_LUMINANCE = (0.2126, 0.7152, 0.0722)
#: Keeps the ratio of luminances finite in black: half of an 8-bit step.
_BLACK = 1 / 510


def dream(
    model: Model,
    image: ImageLike,
    objective: Objective | str | None = None,
    *,
    octaves: int = 4,
    octave_scale: float = 1.4,
    steps: int = 10,
    lr: float = 0.01,
    jitter: float | None = None,
    normalize: Literal["mean", "max", "std"] = "mean",
    guide: Picture | None = None,
    mask: ImageLike | None = None,
    schedule: Schedule | None = None,
    colors: Literal["free", "preserve"] = "free",
    tile: int | None = None,
    seed: Seed = 0,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool = False,
) -> Result:
    """Return ``image`` with what ``objective`` looks for made stronger in it: DeepDream.

    From the smallest octave to the picture's own size: gradient steps of normalized size on the
    pixels, then what they changed (the *detail*) is enlarged and laid on the next octave. Each
    octave is one run of the loop, :func:`featviz.optimize`. [Mordvintsev2015]_

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`.
    image
        A file, a Pillow picture, or floats (C, H, W) or (B, C, H, W) in [0, 1].
    objective
        What to enhance, or its text; the energy of a layer at two thirds of the depth by default.
    octaves, octave_scale
        How many sizes, and the factor between two of them.
    steps
        Updates in each octave.
    lr
        What a step changes a pixel by on average, in image units.
    jitter
        Largest shift before each step, cyclic, in whole pixels (a fraction of the side below 1);
        32, or half a tile's side.
    normalize
        What a gradient is divided by, as in :func:`featviz.optim.optimizers.normalized`.
    guide
        A picture whose features in the objective's layer are dreamed of: the objective becomes
        :func:`featviz.guide_match`.
    mask
        Where to dream: (H, W) or (1 or B, 1, H, W) in [0, 1], or a picture, resized to the image.
        Where it is 0 nothing changes.
    schedule
        Factor of the learning rate as a function of each octave's progress from 0 to 1.
    colors
        ``preserve`` keeps the original's colours, each times the ratio of the luminances.
    tile
        Side in pixels of the pieces that the network sees one at a time; memory depends on it.
    seed
        An int: picture i uses ``seed + i``; or one int for each.
    device, precision, callbacks, progress
        As in :func:`featviz.render`; a callback is started and ended once an octave.

    Returns
    -------
    Result
        ``images`` (B, C, H, W) of the image's size; ``history`` (octaves * steps, B).

    Raises
    ------
    FeatvizError
        For input that cannot work, before the first step.
    OptimizationError
        If no picture has a gradient.
    """
    if not isinstance(model, Model):
        raise FeatvizError("dream takes a featviz.Model: wrap the network, fv.Model(net, mean=…)")
    if len(model.size) != 2:
        raise FeatvizError(f"dream takes networks for pictures (H, W), not of size {model.size}")
    octaves, steps = positive_int("octaves", octaves), positive_int("steps", steps)
    for name, value, least in (("lr", lr, 0), ("octave_scale", octave_scale, 1)):
        if not least < value < float("inf"):
            raise FeatvizError(f"{name} must be more than {least}, not {value}")
    if colors not in ("free", "preserve"):
        raise FeatvizError(f"no colors {colors!r}: they are free or preserve")
    if colors == "preserve" and model.channels != 3:
        raise FeatvizError(f"colors can be preserved in 3 channels, not in {model.channels}")
    if jitter is None:
        jitter = 32 if tile is None else check_tile(tile) // 2
    update, shift = normalized(lr, by=normalize), Roll(jitter)
    home = model.on(devices.resolve(device, model.device))
    goal = dream_objective(home, objective, guide)
    original = read(image, model.channels, "image")
    size = (original.shape[2], original.shape[3])
    seeds = expand(seed, len(original))
    cover = None if mask is None else read_mask(mask, size, len(original))
    sizes = octave_sizes(size, octaves, octave_scale)
    first = sizes[0] if tile is None else tuple(min(side, check_tile(tile)) for side in sizes[0])
    try:
        home.layers(first)
    except ModelError as error:
        if octaves == 1:
            raise FeatvizError(f"{error}; give a size that it takes as tile") from error
        raise FeatvizError(
            f"{error}; that is the smallest of {octaves} octaves: take fewer, or a larger picture"
        ) from error
    settings = {
        "version": __version__,
        "verb": "dream",
        "goal": str(goal),
        "relational": goal.relational,
        "model": model.name,
        "size": list(size),
        "octaves": octaves,
        "octave_scale": octave_scale,
        "steps": steps,
        "lr": lr,
        "jitter": jitter,
        "normalize": normalize,
        "masked": mask is not None,
        "schedule": None if schedule is None else getattr(schedule, "__name__", repr(schedule)),
        "colors": colors,
        "tile": tile,
        "precision": precision,
    }
    watchers = [*callbacks, Progress()] if progress else list(callbacks)
    made: Result | None = None
    parts: list[Tensor] = []
    detail: Tensor | None = None
    for here in sizes:
        plain = resize(original, here, antialias=True)
        start = plain if detail is None else resize(detail, here).add_(plain).clamp_(0, 1)
        detail = None
        param: Param = Canvas(images=start)
        if cover is not None:
            inside = resize(cover, here, antialias=True)
            param = Masked(inner=param, background=plain, mask=inside)
        made = optimize(
            home,
            goal,
            param=param,
            transforms=(shift,) if jitter else (),
            steps=steps,
            seeds=seeds,
            optimizer=update,
            schedule=schedule,
            redirect=0,
            tile=tile,
            importance=False,
            precision=precision,
            callbacks=watchers,
            settings=settings,
        )
        parts.append(made.history)
        del param, start
        if here != size:
            detail = made.images - plain
        if made.interrupted:
            break
        if here != size:
            made = None  # or its copies would lie in memory beside the next octave
    assert made is not None
    if detail is not None:  # ended before the last octave
        made.images = resize(detail, size).add_(original).clamp_(0, 1)
    if colors == "preserve":
        made.images = recolored(original, made.images)
    if made.failures:
        warnings.warn("; ".join(made.failures.values()), FeatvizWarning, stacklevel=2)
    return dataclasses.replace(made, history=torch.cat(parts), checkpoint=None, state={})


def octave_sizes(size: tuple[int, int], octaves: int, scale: float) -> list[tuple[int, int]]:
    """Return the sizes (H, W) of the octaves, the smallest first, ``size`` last.

    Raises
    ------
    FeatvizError
        If the smallest would be less than :data:`SMALLEST` pixels high or wide.
    """
    sizes = []
    for k in reversed(range(octaves)):
        height, width = (round(side / scale**k) for side in size)
        if min(height, width) < SMALLEST:
            raise FeatvizError(
                f"the smallest of {octaves} octaves would have {height} x {width} pixels: "
                "take fewer octaves or a larger picture"
            )
        sizes.append((height, width))
    return sizes


def recolored(original: Tensor, dreamed: Tensor) -> Tensor:
    """Return the original (B, 3, H, W) times the ratio of the luminances, in [0, 1]."""
    weights = original.new_tensor(_LUMINANCE).view(1, 3, 1, 1)
    light, wanted = ((x * weights).sum(1, keepdim=True) for x in (original, dreamed))
    return (original * ((wanted + _BLACK) / (light + _BLACK))).clamp_(0, 1)
