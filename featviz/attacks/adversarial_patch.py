"""Adversarial patches: a printable image that fools a network wherever it is stuck."""

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
from featviz.networks.model import Model
from featviz.optim.callbacks import Callback, Progress, Step
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
from featviz.validation import positive_int

#: Where the finished patch is judged, no step has pasted it.
_FRESH = "patch, judged"


@takes(PatchSettings)
def patch_attack(
    model: Model,
    images: ImageLike | Sequence[ImageLike],
    *,
    to: Goal = None,
    away: Goal = None,
    settings: PatchSettings | None = None,
    seed: Seed = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool = False,
    **options: Unpack[PatchKeywords],
) -> AttackResult:
    """Return one patch, and ``images`` with it: what they become wherever it is pasted.

    Every step pastes the patch at another place of each image, turned by up to ``degrees`` and
    enlarged by ``scale``; Adam with rate ``lr`` moves its pixels, in [0, 1]. ``result.patch``
    (C, h, w) is rounded to 8 bits, ``result.images`` have it at places that the run did not use,
    and ``success`` is theirs. ``history`` (steps, B) is NaN for images that a step left out.
    [Brown2017]_

    Parameters
    ----------
    model, images, to, away
        As in :func:`featviz.attack`.
    settings
        How the patch is made; keywords replace its fields.
    seed
        An int: image i uses ``seed + i``; or one int for each picture.
    batch_size
        On how many of the images, drawn anew, a step pastes the patch; all of them by default.
        Fewer and more steps get further in the same time. It takes one class for all pictures.
    device, callbacks, progress
        As in :func:`featviz.attack`.
    **options
        The fields of :class:`PatchSettings`.

    Raises
    ------
    FeatvizError
        For input that cannot work, before the first step.
    """
    begun = time.perf_counter()
    if not isinstance(model, Model):
        raise FeatvizError("patch_attack takes a featviz.Model: wrap the network, fv.Model(net)")
    chosen = PatchSettings.of(settings, options)
    pictures = read_images(images, model.channels, model.size, "images")
    home = model.on(devices.resolve(device, model.device))
    originals = (pictures * 255).round() / 255
    count = len(originals)
    criterion = attack_criterion(home, originals, away, to, chosen.loss)
    if not criterion.until:
        raise FeatvizError("a patch leads away from or to a class")
    seeds = expand(seed, count)
    some = count if batch_size is None else min(positive_int("batch_size", batch_size), count)
    if some < count and len(set(criterion.objectives)) > 1:
        raise FeatvizError("batch_size takes one class for all images: give to, and no away")
    param = Patch(images=originals[:some], size=chosen.size)
    place = Paste(originals.to(home.device), chosen.degrees, *chosen.scale)
    pasted = dataclasses.replace(place, choose=some < count)
    result = optimize(
        home,
        criterion.select(range(some)).objective,
        param=param,
        transforms=(pasted, *check_transforms(chosen.transforms)),
        steps=chosen.steps,
        seeds=seeds[:some],
        optimizer=adam(chosen.lr),
        redirect=0,
        precision=chosen.precision,
        callbacks=[*callbacks, Progress()] if progress else list(callbacks),
        record={"verb": "patch", "goal": str(criterion.objective), "lr": chosen.lr},
    )
    pixels = (result.state["pixels"] * 255).round() / 255
    finished = _paste(pixels.expand(count, -1, -1, -1), place, seeds, param.shape)
    after = predicted_classes(home, finished, criterion.layer)
    return AttackResult(
        images=finished,
        scores=scores(home, criterion.objective, finished, precision=chosen.precision),
        history=_by_picture(result.history, pasted, seeds[:some], param.shape),
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
        norm=(finished - originals).flatten(1).abs().amax(1).double(),
        norm_kind="patch",
        eps=torch.ones(count, dtype=torch.float64),
        steps_used=torch.full((count,), len(result.history)),
        eight_bit=True,
        classes=model.classes,
        seconds=time.perf_counter() - begun,
    )


def _by_picture(history: Tensor, pasted: Paste, seeds: list[int], size: tuple[int, ...]) -> Tensor:
    """Return scores of the images drawn in each step (steps, n) as scores of all (steps, B)."""
    if not pasted.choose or not len(history):
        return history
    tape = draw_tape(pasted, 0, seeds, len(history), size)
    whole = history.new_full((len(history), len(pasted.images)), torch.nan)
    return whole.scatter_(1, pasted.chosen(tape), history)


def _paste(patches: Tensor, place: Paste, seeds: list[int], size: tuple[int, ...]) -> Tensor:
    """Return the images, rounded to 8 bits, each with its patch at a fresh place."""
    drawn = [place.draw(generator(seed, _FRESH), 1, size) for seed in seeds]
    images = place.prepare(torch.stack(drawn, 1))(patches.to(place.images), 0).cpu()
    return (images.clamp(0, 1) * 255).round() / 255
