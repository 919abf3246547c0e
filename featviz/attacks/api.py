"""Adversarial examples: move given images within a ball until a network misclassifies them."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz.attacks.criterion import Goal, attack_criterion
from featviz.attacks.radius_search import smallest_radius
from featviz.attacks.restarts import AttackRun, attack_with_restarts
from featviz.attacks.result import AttackResult
from featviz.attacks.settings import AttackKeywords, AttackSettings
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.io.inputs import ImageLike, read_images
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.optim.callbacks import Callback, Progress, Step
from featviz.optim.result import Result
from featviz.optim.tracing import PAYS, TraceCache
from featviz.options import takes
from featviz.seeds import expand
from featviz.types import Seed, Tensor, Unpack
from featviz.validation import positive_int


@takes(AttackSettings)
def attack(
    model: Model,
    images: ImageLike | Sequence[ImageLike],
    *,
    away: Goal = None,
    to: Goal = None,
    settings: AttackSettings | None = None,
    seed: Seed = 0,
    batch_size: int = 16,
    device: str | torch.device | None = None,
    traced: bool | TraceCache | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool = False,
    **options: Unpack[AttackKeywords],
) -> AttackResult:
    """Return images no further than ``eps`` from ``images`` that the network misclassifies.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`.
    images
        Files, Pillow images, arrays, or floats (B, C, *size) in [0, 1]; the network's normalization
        comes after them. Files and Pillow images are cropped and resized to the model's size.
    away, to
        What the image shall no longer be, and what instead: a class (an index or
        ``fv.class_logit(…)``) or any other objective, which is then simply lowered or raised;
        one for all, or a list. With neither, away from what the network predicts.
    settings
        How the images are attacked; keywords replace its fields.
    seed
        An int: image i uses ``seed + i``; or one int for each picture.
    batch_size
        Images that are attacked at once.
    device
        Where to compute: ``None`` is where the model is, ``auto`` the best there is.
    traced
        Trace the network once for the whole attack; by default from 32 steps an image on. A
        ``featviz.optim.tracing.TraceCache()`` keeps the trace for the next attack on the model.
    callbacks
        :class:`featviz.callbacks.Callback` objects or functions of a step.
    progress
        Show a progress bar.
    **options
        The fields of :class:`AttackSettings`.

    Returns
    -------
    AttackResult
        After Ctrl-C, which ``interrupted`` says, images whose turn did not come are the
        originals.

    Raises
    ------
    FeatvizError
        For input that cannot work, before the first step.
    """
    begun = time.perf_counter()
    if not isinstance(model, Model):
        raise FeatvizError("attack takes a featviz.Model: wrap the network, fv.Model(net, mean=…)")
    pictures = read_images(images, model.channels, model.size, "images")
    count = len(pictures)
    asked = AttackSettings.of(settings, options)
    chosen = asked.resolve(pictures[0].numel())
    positive_int("batch_size", batch_size)
    home = model.on(devices.resolve(device, model.device))
    originals = (pictures * 255).round() / 255 if chosen.eight_bit else pictures
    if traced is None:
        traced = chosen.steps * chosen.eot * chosen.restarts >= PAYS or asked.searched
    traces = traced if isinstance(traced, TraceCache) else TraceCache() if traced else None
    criterion = attack_criterion(home, originals, away, to, chosen.loss, traces=traces)
    if asked.searched and not criterion.until:
        raise FeatvizError('eps="min" searches for a class: give away or to a class')
    run = AttackRun(
        model=home,
        settings=chosen,
        batch_size=count if chosen.universal else batch_size,
        traces=traces,
        callbacks=[*callbacks, Progress()] if progress else list(callbacks),
        record={"verb": "attack", **chosen.record, "eps_given": str(asked.eps)},
    )
    seeds = expand(seed, count)
    radius = float(chosen.eps)
    if asked.searched:
        attacked, radii = smallest_radius(run, originals, criterion, radius, seeds)
    else:
        radii = torch.full((count,), radius, dtype=torch.float64)
        attacked = attack_with_restarts(run, originals, criterion, radii.float(), seeds)
    result = Result.join(attacked.results)
    failures = {i: why for i, why in result.failures.items() if not attacked.success[i]}
    if failures:
        warnings.warn("; ".join(dict.fromkeys(failures.values())), FeatvizWarning, stacklevel=3)
    whole = {field.name: getattr(result, field.name) for field in dataclasses.fields(Result)}
    goal = {"goal": str(criterion.objective)}
    whole |= {"failures": failures, "settings": {**result.settings, **goal}}
    return AttackResult(
        **whole,
        originals=originals,
        success=attacked.success,
        before=criterion.before,
        after=attacked.after,
        norm=run.distance(result.images, originals),
        norm_kind=chosen.norm,
        eps=radii,
        steps_used=_steps_used(result, count),
        eight_bit=bool(chosen.eight_bit),
        classes=model.classes,
        seconds=time.perf_counter() - begun,
    )


def _steps_used(result: Result, count: int) -> Tensor:
    """Return after how many updates each image succeeded, or how many were made, (B,)."""
    made = (~result.history.isnan()).sum(0).expand(count)
    return made if result.reached is None else torch.where(result.reached < 0, made, result.reached)
