"""Feature visualization: optimize a picture from noise until it excites a unit."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz import devices
from featviz._version import __version__
from featviz.callbacks import Callback, Progress, Step
from featviz.engine import REDIRECT, optimize
from featviz.errors import FeatvizError, FeatvizWarning, OptimizationError
from featviz.model import Model
from featviz.objectives import Objective
from featviz.objectives import objective as as_objective
from featviz.objectives.group import PerSample
from featviz.objectives.scene import Target
from featviz.param import Fourier, Param
from featviz.param import parse as parse_param
from featviz.param import text as param_text
from featviz.recipes.quality import find as find_quality
from featviz.recipes.sources import count
from featviz.result import Result
from featviz.seeds import expand
from featviz.transforms import Transform
from featviz.transforms.presets import check as check_transforms
from featviz.transforms.presets import text as transforms_text
from featviz.types import OptimizerFactory, Precision, Schedule, Seed, Size
from featviz.updates import adam, default_rate

#: How many pictures are optimized side by side unless the caller says otherwise. A GPU starts with
#: many: where its memory is too small for them, they go through the network in halves.
BATCH_SIZE = 16
BATCH_SIZE_GPU = 128


def render(
    model: Model,
    objective: Objective | str | Sequence[Objective | str],
    *,
    param: Param | str | None = None,
    transforms: Sequence[Transform] | str | None = None,
    quality: str = "standard",
    steps: int | None = None,
    seed: Seed = 0,
    size: Size | None = None,
    optimizer: OptimizerFactory | None = None,
    lr: float | None = None,
    schedule: Schedule | None = None,
    redirect: int = REDIRECT,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    compile: bool = False,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool = False,
) -> Result:
    """Return pictures that excite a unit of ``model``; a list gives one picture each.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`.
    objective
        An objective or its text; a list of them: one picture each.
    param
        A parameterization or its text; :class:`featviz.param.Fourier` by default.
    transforms
        Transforms or their text; those of ``quality`` by default, ``()`` for none.
    quality
        ``fast``, ``standard`` or ``best``: steps and transforms that belong
        together (:mod:`featviz.recipes.quality`), where they are not given.
    steps
        Updates; 512 by default.
    seed
        An int: picture i uses ``seed + i``; or one int for each picture, and several seeds for
        a single objective give as many pictures of it. A picture depends on its own seed only.
    size
        The size of the picture, where ``param`` leaves it open; the model's own by default.
    optimizer
        A ``torch.optim`` class, or any function of a list of tensors that returns an
        optimizer; Adam by default.
    lr
        Learning rate, for a ``torch.optim`` class or for the default optimizer: 0.1 up to 256
        steps and 25.6 / steps beyond (:func:`featviz.updates.default_rate`).
    schedule
        Factor of the learning rate as a function of the progress from 0 to 1.
    redirect
        Steps at the start in which a dead ReLU lets gradients through that would open it, as
        lucid does; ``result.redirected`` says for which pictures it did. 0 turns it off.
    batch_size
        Pictures that are optimized at once; longer lists are worked off in batches. By default 16,
        on a GPU 128; where memory does not do, fewer at a time go through the network.
    device
        Where to compute: ``None`` is where the model is, ``auto`` the best there is. The
        model itself is not moved.
    precision
        ``fp32``, or ``bf16`` or ``fp16`` for the network's activations (autocast).
    compile
        Give the traced network to ``torch.compile``; it pays on a GPU and for many pictures.
    callbacks
        :class:`featviz.callbacks.Callback` objects or functions of a step.
    progress
        Show a progress bar.

    Returns
    -------
    Result
        ``images`` (B, C, H, W), ``scores`` (B,), ``history`` (steps, B). Samples that could not
        be optimized are named in ``failures``, with a warning.

    Raises
    ------
    FeatvizError
        For input that cannot work, before the first step.
    OptimizationError
        If no picture of the whole list could be optimized.
    """
    if not isinstance(model, Model):
        raise FeatvizError("render takes a featviz.Model: wrap the network, fv.Model(net, mean=…)")
    preset = find_quality(quality)
    steps = count("steps", preset.steps if steps is None else steps)
    if batch_size is not None and batch_size < 1:
        raise FeatvizError(f"batch_size must be positive, not {batch_size}")
    if lr is not None and not lr > 0:
        raise FeatvizError(f"lr must be positive, not {lr}")
    home = model.on(devices.resolve(device, model.device))
    batch_size = batch_size or (BATCH_SIZE if home.device.type == "cpu" else BATCH_SIZE_GPU)
    goal = as_objective(objective)
    members = list(goal.parts) if isinstance(goal, PerSample) else None
    if members is None:
        seeds = expand(seed, len(seed) if isinstance(seed, (list, tuple, range)) else 1)
        batch_size = len(seeds) if goal.relational else batch_size
    else:
        seeds = expand(seed, len(members))
    chosen = parse_param(param) if isinstance(param, str) else param or Fourier()
    if size is not None:
        if chosen.size is not None and chosen.shape != dataclasses.replace(chosen, size=size).shape:
            raise FeatvizError(f"size {size} does not fit a parameterization of {chosen.shape}")
        chosen = dataclasses.replace(chosen, size=size)
    chosen = chosen.sized(model.channels, model.size)
    if chosen.relational:
        batch_size = len(seeds)
    if transforms is None:
        flat = len(chosen.shape) == 2
        changes = check_transforms(preset.transforms if flat else "jitter,noise")
    else:
        changes = check_transforms(transforms)
    if lr is None and optimizer is None:
        lr = default_rate(steps) * chosen.rate
    make = _optimizer(optimizer, lr)
    settings = {
        "version": __version__,
        "verb": "render",
        "goal": str(goal),
        "relational": goal.relational,
        "model": model.name,
        "steps": steps,
        "size": list(chosen.shape),
        "param": param_text(chosen),
        "transforms": transforms_text(changes),
        "optimizer": "adam" if optimizer is None else getattr(optimizer, "__name__", None),
        "lr": lr,
        "schedule": None if schedule is None else getattr(schedule, "__name__", repr(schedule)),
        "redirect": redirect,
        "precision": precision,
    }
    watchers = [*callbacks, Progress()] if progress else list(callbacks)

    # Say what is wrong with the last objective before the first picture is rendered.
    channels = (chosen.channels or home.channels) + chosen.transparent
    goal.bind(Target(home, chosen.shape, len(seeds), channels))
    parts: list[Result] = []
    for start in range(0, len(seeds), batch_size):
        here = slice(start, start + batch_size)
        try:
            part = optimize(
                home,
                goal.sliced(here),
                param=chosen,
                transforms=changes,
                steps=steps,
                seeds=seeds[here],
                optimizer=make,
                schedule=schedule,
                redirect=redirect,
                precision=precision,
                compile=compile,
                callbacks=watchers,
                settings=settings,
            )
        except OptimizationError as error:
            part = error.result
        except KeyboardInterrupt:  # between the steps of two batches
            if not parts:
                raise
            parts[-1].interrupted = True
            break
        parts.append(part)
        if part.interrupted:
            break
    result = Result.join(parts)
    if result.failures:
        why = "; ".join(dict.fromkeys(result.failures.values()))
        if len(result.failures) == len(result) and not result.interrupted:
            raise OptimizationError(why, result)
        warnings.warn(why, FeatvizWarning, stacklevel=2)
    return result


def _optimizer(optimizer: OptimizerFactory | None, lr: float | None) -> OptimizerFactory:
    if optimizer is not None and not callable(optimizer):
        raise FeatvizError("optimizer must be a torch.optim class or a function of the parameters")
    if optimizer is None:
        assert lr is not None
        return adam(lr)
    if lr is None:
        return optimizer
    if not isinstance(optimizer, type):
        raise FeatvizError("lr goes with a torch.optim class; an optimizer function has its own")
    return functools.partial(optimizer, lr=lr)
