"""Adversarial examples: perturb images within a ball until a network misclassifies them."""

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
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.optim.callbacks import Callback, Step, watched
from featviz.optim.result import Result
from featviz.optim.tracing import PAYS, TraceCache
from featviz.options import takes
from featviz.seeds import expand
from featviz.types import Seed, Tensor, Unpack
from featviz.validation import positive_int


@takes(AttackSettings)
def attack(
    model: Model | str,
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
    progress: bool | None = None,
    **options: Unpack[AttackKeywords],
) -> AttackResult:
    """Return images within ``eps`` of ``images`` that the network misclassifies.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`, or the name of a network.
    images
        Files, Pillow images, arrays, or floats (B, C, *size) in [0, 1], before the network's
        normalization. Files and Pillow images are cropped and resized to the model's size.
    away, to
        The class to lead away from and the target class: each an index, ``fv.class_logit(…)``, or
        any other objective, which is then minimized or maximized; one for all images, or a list.
        With neither, the attack leads away from the predicted class.
    settings
        How the images are attacked; keyword arguments override its fields.
    seed
        An int (image i uses ``seed + i``), or one int for each image.
    batch_size
        Images that are attacked together.
    device
        Device to compute on: ``None`` is the model's own, ``auto`` the best one available.
    traced
        Whether to trace the network once for the whole attack; by default, from 32 steps per image
        on. A ``featviz.optim.tracing.TraceCache()`` shares the trace with later attacks on the
        model.
    callbacks
        :class:`featviz.callbacks.Callback` objects or functions of a step.
    progress
        Show a progress bar; None, the default: in interactive sessions and notebooks.
    **options
        The fields of :class:`AttackSettings`.

    Returns
    -------
    AttackResult
        After Ctrl-C, ``interrupted`` is set, and images that were not reached are the originals.

    Raises
    ------
    FeatvizError
        For invalid input, before the first step.
    """
    started = time.perf_counter()
    model = as_model(model, "attack")
    inputs = read_images(images, model.channels, model.size, "images", crop=model.crop)
    count = len(inputs)
    requested = AttackSettings.of(settings, options)
    drawable = len(model.size) == 2 and model.channels in (1, 3)
    config = requested.resolve(inputs[0].numel(), drawable=drawable)
    positive_int("batch_size", batch_size)
    network = model.on(devices.resolve(device, model.device))
    originals = (inputs * 255).round() / 255 if config.eight_bit else inputs
    if traced is None:
        traced = config.steps * config.eot * config.restarts >= PAYS or requested.searched
    traces = traced if isinstance(traced, TraceCache) else TraceCache() if traced else None
    criterion = attack_criterion(network, originals, away, to, config.loss, traces=traces)
    if requested.searched and not criterion.until:
        raise FeatvizError('eps="min" needs a class as away or to')
    run = AttackRun(
        model=network,
        settings=config,
        batch_size=count if config.universal else batch_size,
        traces=traces,
        callbacks=watched(callbacks, progress),
        record={"verb": "attack", **config.record, "eps_given": str(requested.eps)},
    )
    seeds = expand(seed, count)
    radius = float(config.eps)
    if requested.searched:
        attacked, radii = smallest_radius(run, originals, criterion, radius, seeds)
    else:
        radii = torch.full((count,), radius, dtype=torch.float64)
        attacked = attack_with_restarts(run, originals, criterion, radii.float(), seeds)
    result = Result.join(attacked.results)
    failures = {i: why for i, why in result.failures.items() if not attacked.success[i]}
    if failures:
        warnings.warn("; ".join(dict.fromkeys(failures.values())), FeatvizWarning, stacklevel=3)
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(Result)}
    goal = {"goal": str(criterion.objective)}
    fields |= {"failures": failures, "settings": {**result.settings, **goal}}
    return AttackResult(
        **fields,
        originals=originals,
        success=attacked.success,
        before=criterion.before,
        after=attacked.after,
        norm=run.distance(result.images, originals, inputs),
        norm_kind=config.norm,
        eps=radii,
        steps_used=_steps_used(result, count),
        eight_bit=bool(config.eight_bit),
        classes=model.classes,
        seconds=time.perf_counter() - started,
    )


def _steps_used(result: Result, count: int) -> Tensor:
    """Return the number of updates (B,) until each image succeeded, or the total number."""
    total = (~result.history.isnan()).sum(0).expand(count)
    if result.reached is None:
        return total
    return torch.where(result.reached < 0, total, result.reached)
