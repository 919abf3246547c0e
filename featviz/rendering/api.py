"""Feature visualization: optimize a picture from noise until it excites a unit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz.errors import FeatvizError, FeatvizWarning, OptimizationError
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives import objective as as_objective
from featviz.objectives.group import PerSample
from featviz.optim.callbacks import Callback, Progress, Step
from featviz.optim.loop import REDIRECT
from featviz.optim.result import Result
from featviz.optim.settings import prepare
from featviz.param import Param
from featviz.seeds import expand
from featviz.transforms import Transform
from featviz.types import OptimizerFactory, Precision, Schedule, Seed, Size


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
        together (:mod:`featviz.optim.quality`), where they are not given.
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
        steps and 25.6 / steps beyond (:func:`featviz.optim.optimizers.default_rate`).
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
        :class:`featviz.optim.callbacks.Callback` objects or functions of a step.
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
    goal = as_objective(objective)
    members = list(goal.parts) if isinstance(goal, PerSample) else None
    if members is None:
        seeds = expand(seed, len(seed) if isinstance(seed, (list, tuple, range)) else 1)
    else:
        seeds = expand(seed, len(members))
    if batch_size is not None and batch_size < 1:
        raise FeatvizError(f"batch_size must be positive, not {batch_size}")
    job = prepare(
        model,
        param=param,
        transforms=transforms,
        quality=quality,
        steps=steps,
        size=size,
        optimizer=optimizer,
        lr=lr,
        schedule=schedule,
        redirect=redirect,
        device=device,
        precision=precision,
        compile=compile,
    )
    batch_size = batch_size or job.batch_size
    if (goal.relational and members is None) or job.param.relational:
        batch_size = len(seeds)
    settings = {
        **job.settings,
        "verb": "render",
        "goal": str(goal),
        "relational": goal.relational,
    }
    watchers = [*callbacks, Progress()] if progress else list(callbacks)
    traces = job.traces() if len(seeds) > batch_size else None

    # Say what is wrong with the last objective before the first picture is rendered.
    job.check(goal, len(seeds))
    parts: list[Result] = []
    for start in range(0, len(seeds), batch_size):
        here = slice(start, start + batch_size)
        try:
            part = job.run(
                goal.sliced(here), seeds[here], callbacks=watchers, settings=settings, traces=traces
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
