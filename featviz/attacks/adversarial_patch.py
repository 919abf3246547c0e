"""Adversarial patches: a printable image that fools a network wherever it is placed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz.attacks.criterion import Goal, attack_criterion
from featviz.attacks.result import AttackResult
from featviz.attacks.settings import PatchKeywords, PatchSettings
from featviz.errors import FeatvizError
from featviz.io.inputs import ImageLike, read_images
from featviz.networks import devices
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.optim.callbacks import Callback, Step, watched
from featviz.optim.collecting import predicted_classes
from featviz.optim.evaluator import scores
from featviz.optim.loop import optimize
from featviz.optim.optimizers import adam
from featviz.options import takes
from featviz.param.patch import Patch
from featviz.seeds import expand, generator
from featviz.transforms import Paste
from featviz.transforms.pipeline import draw_tape
from featviz.transforms.presets import check as check_transforms
from featviz.types import Seed, Tensor, Unpack
from featviz.validation import positive_int, real

#: Random stream of the held-out placements on which the finished patch is evaluated.
_HELD_OUT_STREAM = "patch, judged"


@takes(PatchSettings)
def patch_attack(
    model: Model | str,
    images: ImageLike | Sequence[ImageLike],
    *,
    to: Goal = None,
    away: Goal = None,
    settings: PatchSettings | None = None,
    seed: Seed = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool | None = None,
    **options: Unpack[PatchKeywords],
) -> AttackResult:
    """Optimize one patch that makes the network misclassify any image it is pasted onto.

    Every step pastes the patch at a random position of each image, rotated by up to ``degrees`` and
    scaled by a factor from ``scale``; Adam with rate ``lr`` updates its pixels, in [0, 1].
    ``result.patch`` (C, h, w) is rounded to 8 bits, and so are the images, unless no file could
    hold them (other than 1 or 3 channels); ``result.images`` show it at held-out positions, for
    which ``success`` is measured. ``history`` (steps, B) is NaN for images that a
    step did not use. [Brown2017]_

    Parameters
    ----------
    model, images, to, away
        As in :func:`featviz.attack`.
    settings
        How the patch is optimized; keyword arguments override its fields.
    seed
        An int (image i uses ``seed + i``), or one int for each image.
    batch_size
        The number of images, drawn at random, that each step uses; by default, all. Fewer images
        and more steps give better patches in the same time. Needs one target class for all images.
    device, callbacks, progress
        As in :func:`featviz.attack`.
    **options
        The fields of :class:`PatchSettings`.

    Raises
    ------
    FeatvizError
        For invalid input, before the first step.
    """
    started = time.perf_counter()
    model = as_model(model, "patch_attack")
    config = PatchSettings.of(settings, options)
    if not isinstance(config.scale, (tuple, list)) or len(config.scale) != 2:
        raise FeatvizError(f"scale must be two numbers, low and high, not {config.scale!r}")
    low, high = (real("scale", bound, 0, 1000, above=True) for bound in config.scale)
    inputs = read_images(images, model.channels, model.size, "images", crop=model.crop)
    network = model.on(devices.resolve(device, model.device))
    drawable = model.channels in (1, 3)
    originals = _rounded(inputs) if drawable else inputs
    count = len(originals)
    criterion = attack_criterion(network, originals, away, to, config.loss)
    if not criterion.until:
        raise FeatvizError("a patch needs a class to lead away from or to")
    seeds = expand(seed, count)
    per_step = count if batch_size is None else min(positive_int("batch_size", batch_size), count)
    if per_step < count and len(set(criterion.objectives)) > 1:
        raise FeatvizError("batch_size needs one class for all images: give to, and no away")
    param = Patch(images=originals[:per_step], size=config.size)
    paste = Paste(originals.to(network.device), config.degrees, low, high)
    train_paste = dataclasses.replace(paste, choose=per_step < count)
    result = optimize(
        network,
        criterion.select(range(per_step)).objective,
        param=param,
        transforms=(train_paste, *check_transforms(config.transforms)),
        steps=config.steps,
        seeds=seeds[:per_step],
        optimizer=adam(config.lr),
        redirect=0,
        precision=config.precision,
        callbacks=watched(callbacks, progress),
        record={"verb": "patch", "goal": str(criterion.objective), "lr": config.lr},
    )
    pixels = result.state["pixels"]
    pixels = _rounded(pixels) if drawable else pixels
    patched = _pasted(pixels.expand(count, -1, -1, -1), paste, seeds, param.shape)
    patched = _rounded(patched) if drawable else patched
    after = predicted_classes(network, patched, criterion.layer)
    return AttackResult(
        images=patched,
        scores=scores(network, criterion.objective, patched, precision=config.precision),
        history=_by_image(result.history, train_paste, seeds[:per_step], param.shape),
        objectives=[str(o) for o in criterion.objectives],
        seeds=seeds,
        settings=result.settings,
        importance=None,
        state={"pixels": pixels},
        interrupted=result.interrupted,
        originals=originals,
        success=criterion.is_met(after),
        before=criterion.before,
        after=after,
        norm=(patched - inputs).flatten(1).abs().amax(1).double(),
        norm_kind="patch",
        eps=torch.ones(count, dtype=torch.float64),
        steps_used=torch.full((count,), len(result.history)),
        eight_bit=drawable,
        classes=model.classes,
        seconds=time.perf_counter() - started,
    )


def _by_image(history: Tensor, paste: Paste, seeds: list[int], size: tuple[int, ...]) -> Tensor:
    """Scatter the scores of the images drawn in each step (steps, n) to all images (steps, B)."""
    if not paste.choose or not len(history):
        return history
    tape = draw_tape(paste, 0, seeds, len(history), size)
    by_image = history.new_full((len(history), len(paste.images)), torch.nan)
    return by_image.scatter_(1, paste.chosen(tape), history)


def _pasted(patches: Tensor, paste: Paste, seeds: list[int], size: tuple[int, ...]) -> Tensor:
    """Return the images with their patches at held-out positions."""
    tapes = [paste.draw(generator(seed, _HELD_OUT_STREAM), 1, size) for seed in seeds]
    images = paste.prepare(torch.stack(tapes, 1))(patches.to(paste.images), 0).cpu()
    return images.clamp(0, 1)


def _rounded(images: Tensor) -> Tensor:
    """Return images as an 8-bit file holds them."""
    return (images * 255).round() / 255
