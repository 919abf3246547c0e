"""DeepDream: enhance in an image what a network sees in it, from coarse to fine."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz.dreaming.defaults import dream_objective
from featviz.dreaming.octaves import octave_sizes, recolored
from featviz.dreaming.settings import DreamKeywords, DreamSettings
from featviz.errors import FeatvizError, FeatvizWarning, ModelError
from featviz.io.inputs import ImageLike, read_image, read_mask
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives.reference import Picture
from featviz.optim.callbacks import Callback, Progress, Step
from featviz.optim.loop import optimize
from featviz.optim.optimizers import normalized
from featviz.optim.result import Result
from featviz.optim.tiling import check_tile
from featviz.options import takes
from featviz.param import Canvas, Masked, Param
from featviz.resample import resize
from featviz.seeds import expand
from featviz.transforms import Roll
from featviz.types import Seed, Tensor, Unpack
from featviz.validation import positive_int


@takes(DreamSettings)
def dream(
    model: Model,
    image: ImageLike,
    objective: Objective | str | None = None,
    *,
    guide: Picture | None = None,
    mask: ImageLike | None = None,
    settings: DreamSettings | None = None,
    seed: Seed = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool = False,
    **options: Unpack[DreamKeywords],
) -> Result:
    """Return ``image`` with what ``objective`` looks for enhanced in it: DeepDream.

    From the smallest octave to the image's own size: gradient steps of normalized size on the
    pixels, then what they changed (the *detail*) is enlarged and added to the next octave. Each
    octave is one run of the loop, :func:`featviz.optimize`. [Mordvintsev2015]_

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`.
    image
        A file, a Pillow image, an array, or floats (C, H, W) or (B, C, H, W) in [0, 1].
    objective
        What to enhance, or its text; the energy of a layer at two thirds of the depth by default.
    guide
        An image whose features in the objective's layer are dreamed of: the objective becomes
        :func:`featviz.guide_match`.
    mask
        Where to dream: (H, W) or (1 or B, 1, H, W) in [0, 1], or an image, resized to the image.
        Where it is 0 nothing changes.
    settings
        How; keywords replace its fields.
    seed
        An int: image i uses ``seed + i``; or one int for each.
    batch_size
        Images that go through the network together; all on a GPU and, on a CPU, one by default.
    device
        Where to compute: ``None`` is where the model is, ``auto`` the best there is.
    callbacks
        :class:`featviz.callbacks.Callback` objects or functions of a step; a callback is started
        and ended once an octave.
    progress
        Show a progress bar.
    **options
        The fields of :class:`DreamSettings`.

    Returns
    -------
    Result
        ``images`` (B, C, H, W) of the image's size; ``history`` (octaves * steps, B).

    Raises
    ------
    FeatvizError
        For input that cannot work, before the first step.
    OptimizationError
        If no image has a gradient.
    """
    if not isinstance(model, Model):
        raise FeatvizError("dream takes a featviz.Model: wrap the network, fv.Model(net, mean=…)")
    if len(model.size) != 2:
        raise FeatvizError(f"dream takes networks for images (H, W), not of size {model.size}")
    chosen = DreamSettings.of(settings, options).resolve(model.channels)
    update, shift = normalized(chosen.lr, by=chosen.normalize), Roll(chosen.jitter or 0)
    if batch_size is not None:
        positive_int("batch_size", batch_size)
    home = model.on(devices.resolve(device, model.device))
    goal = dream_objective(home, objective, guide)
    original = read_image(image, model.channels, "image")
    size = (original.shape[2], original.shape[3])
    seeds = expand(seed, len(original))
    cover = None if mask is None else read_mask(mask, size, len(original))
    sizes = octave_sizes(size, chosen.octaves, chosen.octave_scale)
    _check_smallest(home, sizes, chosen)
    record = {
        "verb": "dream",
        "goal": str(goal),
        "size": list(size),
        "octaves": chosen.octaves,
        "octave_scale": chosen.octave_scale,
        "lr": chosen.lr,
        "jitter": chosen.jitter,
        "normalize": chosen.normalize,
        "masked": mask is not None,
        "colors": chosen.colors,
        "tile": chosen.tile,
    }
    watchers = [*callbacks, Progress()] if progress else list(callbacks)
    result: Result | None = None
    histories: list[Tensor] = []
    detail: Tensor | None = None
    for octave in sizes:
        plain = resize(original, octave, antialias=True)
        start = plain if detail is None else resize(detail, octave).add_(plain).clamp_(0, 1)
        detail = None
        param: Param = Canvas(images=start)
        if cover is not None:
            inside = resize(cover, octave, antialias=True)
            param = Masked(inner=param, background=plain, mask=inside)
        result = optimize(
            home,
            goal,
            seeds=seeds,
            param=param,
            transforms=(shift,) if chosen.jitter else (),
            steps=chosen.steps,
            optimizer=update,
            schedule=chosen.schedule,
            redirect=0,
            precision=chosen.precision,
            tile=chosen.tile,
            micro=batch_size,
            importance=False,
            callbacks=watchers,
            record=record,
        )
        histories.append(result.history)
        del param, start
        if octave != size:
            detail = result.images - plain
        if result.interrupted:
            break
        if octave != size:
            result = None  # or its copies would lie in memory beside the next octave
    assert result is not None
    if detail is not None:  # ended before the last octave
        result.images = resize(detail, size).add_(original).clamp_(0, 1)
    if chosen.colors == "preserve":
        result.images = recolored(original, result.images)
    if result.failures:
        warnings.warn("; ".join(result.failures.values()), FeatvizWarning, stacklevel=3)
    return dataclasses.replace(result, history=torch.cat(histories), checkpoint=None, state={})


def _check_smallest(model: Model, sizes: list[tuple[int, int]], settings: DreamSettings) -> None:
    """Raise :class:`FeatvizError` if the network cannot take the smallest octave."""
    tile, first = settings.tile, sizes[0]
    seen = first if tile is None else tuple(min(side, check_tile(tile)) for side in first)
    try:
        model.layers(seen)
    except ModelError as error:
        if settings.octaves == 1:
            raise FeatvizError(f"{error}; give a size that it takes as tile") from error
        raise FeatvizError(
            f"{error}; that is the smallest of {settings.octaves} octaves: use fewer, or a larger "
            "picture"
        ) from error
