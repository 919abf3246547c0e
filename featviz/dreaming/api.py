"""DeepDream: enhance what a network sees in an image, from coarse to fine."""

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
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives.reference import Picture
from featviz.optim.callbacks import Callback, Step, watched
from featviz.optim.loop import optimize
from featviz.optim.optimizers import normalized
from featviz.optim.result import Result
from featviz.optim.tiling import check_tile
from featviz.options import takes
from featviz.param import Canvas, Masked, Param
from featviz.resample import resize
from featviz.seeds import expand
from featviz.transforms import Roll
from featviz.transforms.presets import check as check_transforms
from featviz.types import Seed, Tensor, Unpack
from featviz.validation import positive_int


@takes(DreamSettings)
def dream(
    model: Model | str,
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
    progress: bool | None = None,
    **options: Unpack[DreamKeywords],
) -> Result:
    """Return ``image`` with the features that maximize ``objective`` enhanced: DeepDream.

    The image is processed from the smallest octave to its own size: normalized gradient steps on
    the pixels, after which the changes (the *detail*) are upsampled and added to the next octave.
    Each octave is one run of the loop, :func:`featviz.optimize`. [Mordvintsev2015]_

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`, or the name of a network.
    image
        A file, a Pillow image, an array, or floats (C, H, W) or (B, C, H, W) in [0, 1].
    objective
        The objective to maximize, or its text; by default, the energy of a layer at two thirds of
        the depth.
    guide
        A guide image, whose features in the objective's layer are matched: the objective becomes
        :func:`featviz.guide_match`.
    mask
        Where to dream: (H, W) or (1 or B, 1, H, W) in [0, 1], or an image, resized to the size of
        the input. Pixels where it is 0 do not change.
    settings
        How the image is dreamed; keyword arguments override its fields.
    seed
        An int (image i uses ``seed + i``), or one int for each image.
    batch_size
        Images per forward pass; by default, all on a GPU and one on a CPU.
    device
        Device to compute on: ``None`` is the model's own, ``auto`` the best one available.
    callbacks
        :class:`featviz.callbacks.Callback` objects or functions of a step; they are started and
        closed once per octave.
    progress
        Show a progress bar; None, the default: in interactive sessions and notebooks.
    **options
        The fields of :class:`DreamSettings`.

    Returns
    -------
    Result
        ``images`` (B, C, H, W), of the input's size; ``history`` (octaves * steps, B).

    Raises
    ------
    FeatvizError
        For invalid input, before the first step.
    OptimizationError
        If no image has a gradient.
    """
    model = as_model(model, "dream")
    if len(model.size) != 2:
        raise FeatvizError(f"dream needs a network for images (H, W), not one of size {model.size}")
    config = DreamSettings.of(settings, options).resolve(model.channels)
    optimizer, shift = normalized(config.lr, by=config.normalize), Roll(config.jitter or 0)
    if batch_size is not None:
        positive_int("batch_size", batch_size)
    network = model.on(devices.resolve(device, model.device))
    goal = dream_objective(network, objective, guide)
    original = read_image(image, model.channels, "image")
    size = (original.shape[2], original.shape[3])
    seeds = expand(seed, len(original))
    full_mask = None if mask is None else read_mask(mask, size, len(original))
    sizes = octave_sizes(size, config.octaves, config.octave_scale)
    _check_smallest(network, sizes, config)
    record = {
        "verb": "dream",
        "goal": str(goal),
        "size": list(size),
        "octaves": config.octaves,
        "octave_scale": config.octave_scale,
        "lr": config.lr,
        "jitter": config.jitter,
        "normalize": config.normalize,
        "masked": mask is not None,
        "colors": config.colors,
        "tile": config.tile,
    }
    observers = watched(callbacks, progress)
    result: Result | None = None
    histories: list[Tensor] = []
    detail: Tensor | None = None
    for octave in sizes:
        resized = resize(original, octave, antialias=True)
        start = resized if detail is None else resize(detail, octave).add_(resized).clamp_(0, 1)
        detail = None
        param: Param = Canvas(images=start)
        if full_mask is not None:
            octave_mask = resize(full_mask, octave, antialias=True)
            param = Masked(inner=param, background=resized, mask=octave_mask)
        result = optimize(
            network,
            goal,
            seeds=seeds,
            param=param,
            transforms=(*([shift] if config.jitter else []), *check_transforms(config.transforms)),
            steps=config.steps,
            optimizer=optimizer,
            schedule=config.schedule,
            redirect=0,
            precision=config.precision,
            tile=config.tile,
            micro=batch_size,
            importance=False,
            callbacks=observers,
            record=record,
        )
        histories.append(result.history)
        del param, start
        if octave != size:
            detail = result.images - resized
        if result.interrupted:
            break
        if octave != size:
            result = None  # frees its copies before the next octave
    assert result is not None
    if detail is not None:  # interrupted before the last octave
        result.images = resize(detail, size).add_(original).clamp_(0, 1)
    if config.colors == "preserve":
        result.images = recolored(original, result.images)
    if result.failures:
        warnings.warn("; ".join(result.failures.values()), FeatvizWarning, stacklevel=3)
    return dataclasses.replace(result, history=torch.cat(histories), checkpoint=None, state={})


def _check_smallest(model: Model, sizes: list[tuple[int, int]], settings: DreamSettings) -> None:
    """Raise :class:`FeatvizError` if the network does not accept the smallest octave."""
    tile, size = settings.tile, sizes[0]
    input_size = size if tile is None else tuple(min(side, check_tile(tile)) for side in size)
    try:
        model.layers(input_size)
    except ModelError as error:
        if settings.octaves == 1:
            raise FeatvizError(f"{error}; set tile to a size that the network accepts") from error
        raise FeatvizError(
            f"{error}; this is the smallest of {settings.octaves} octaves: use fewer, or a larger "
            "image"
        ) from error
