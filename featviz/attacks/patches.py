"""Adversarial patches: a printable picture that fools a network wherever it is stuck."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz._version import __version__
from featviz.attacks import criterion as aims
from featviz.attacks.criterion import Aim, Wish
from featviz.attacks.result import AttackResult
from featviz.errors import FeatvizError
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.optim.callbacks import Callback, Progress, Step
from featviz.optim.loop import optimize
from featviz.optim.optimizers import adam
from featviz.param.patch import Patch
from featviz.seeds import expand, generator
from featviz.transforms import Paste, Transform
from featviz.transforms.presets import check as check_transforms
from featviz.types import Precision, Seed, Size, Tensor
from featviz.validation import positive_int

#: Where the patch is judged, it was never pasted before.
_FRESH = "patch, judged"
#: Pictures that are judged at a time.
_TOGETHER = 16


def patch_attack(
    model: Model,
    images: Tensor,
    *,
    to: Wish = None,
    away: Wish = None,
    size: Size = 50,
    steps: int = 200,
    lr: float = 0.05,
    loss: str = "ce",
    degrees: float = 20.0,
    scale: tuple[float, float] = (0.9, 1.1),
    transforms: Sequence[Transform] | str = (),
    batch_size: int | None = None,
    seed: Seed = 0,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool = False,
) -> AttackResult:
    """Return one patch, and ``images`` with it: what they become wherever it is pasted.

    Every step pastes the patch at another place of each picture, turned by up to ``degrees`` and
    enlarged by ``scale``; Adam with rate ``lr`` moves its pixels, in [0, 1]. ``result.patch``
    (C, h, w) is rounded to 8 bits, ``result.images`` have it at places that the run did not use,
    and ``success`` is theirs. [Brown2017]_

    Parameters
    ----------
    model, images, to, away, loss
        As in :func:`featviz.attack`.
    size
        The side of the patch in pixels, or (h, w).
    steps, lr
        Updates, and Adam's learning rate.
    degrees, scale
        How far the patch is turned and enlarged.
    transforms
        What the pictures with the patch have to survive, too.
    batch_size
        On how many of the pictures, drawn anew, a step pastes the patch; all of them by default.
        Fewer and more steps get further in the same time. It takes one class for all pictures.
    seed, device, precision, callbacks, progress
        As in :func:`featviz.render`.

    Raises
    ------
    FeatvizError
        For input that cannot work, before the first step.
    """
    begun = time.perf_counter()
    if not isinstance(model, Model):
        raise FeatvizError("patch_attack takes a featviz.Model: wrap the network, fv.Model(net)")
    aims.check_images(model, images, "patch_attack")
    home = model.on(devices.resolve(device, model.device))
    originals = (images.detach().cpu().float() * 255).round() / 255
    count = len(images)
    aim = aims.aim(home, originals, away, to, loss, _TOGETHER)
    if not aim.until:
        raise FeatvizError("a patch leads away from or to a class")
    seeds = expand(seed, count)
    some = count if batch_size is None else min(positive_int("batch_size", batch_size), count)
    if some < count and len(set(aim.objectives)) > 1:
        raise FeatvizError("batch_size takes one class for all pictures: give to, and no away")
    param = Patch(images=originals[:some], size=size)
    place = Paste(originals.to(home.device), degrees, *scale)
    settings = {
        "version": __version__,
        "verb": "patch",
        "model": model.name,
        "classes": None if model.classes is None else list(model.classes),
        "norm": "linf",
        "goal": str(aim.objective),
        "size": list(param.shape),
        "steps": steps,
        "lr": lr,
        "precision": precision,
    }
    result = optimize(
        home,
        aim.at(range(some)).objective,
        param=param,
        transforms=(dataclasses.replace(place, choose=some < count), *check_transforms(transforms)),
        steps=steps,
        seeds=seeds[:some],
        optimizer=adam(lr),
        redirect=0,
        precision=precision,
        callbacks=[*callbacks, Progress()] if progress else list(callbacks),
        settings=settings,
    )
    pixels = (result.state["pixels"] * 255).round() / 255
    pasted = _stick(pixels.expand(count, -1, -1, -1), place, seeds, param.shape)
    after = aims.predict(home, pasted, aim.layer, _TOGETHER)
    return AttackResult(
        images=pasted,
        scores=_scores(home, aim, pasted),
        history=result.history,
        objectives=[str(o) for o in aim.objectives],
        seeds=seeds,
        settings=settings,
        importance=None,
        state={"pixels": pixels},
        interrupted=result.interrupted,
        originals=originals,
        success=aim.reached(after),
        before=aim.before,
        after=after,
        norm=(pasted - originals).flatten(1).abs().amax(1).double(),
        eps=torch.ones(count, dtype=torch.float64),
        steps_used=torch.full((count,), len(result.history)),
        eight_bit=True,
        seconds=time.perf_counter() - begun,
    )


def _scores(model: Model, aim: Aim, images: Tensor) -> Tensor:
    """Return what the objective makes of each picture, (B,)."""
    found = []
    with torch.no_grad():
        for start in range(0, len(images), _TOGETHER):
            rows = range(start, min(start + _TOGETHER, len(images)))
            goal = aim.at(rows).objective
            found.append(goal(model, images[list(rows)].to(model.device)).float().cpu())
    return torch.cat(found)


def _stick(patches: Tensor, place: Paste, seeds: list[int], size: tuple[int, ...]) -> Tensor:
    drawn = [place.draw(generator(s, _FRESH), 1, size) for s in seeds]
    images = place.prepare(torch.stack(drawn, 1))(patches.to(place.images), 0).cpu()
    return (images.clamp(0, 1) * 255).round() / 255
