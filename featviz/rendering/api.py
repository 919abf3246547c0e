"""Feature visualization: optimize an image from noise until it excites a unit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz.errors import FeatvizError, FeatvizWarning, OptimizationError
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives import objective as as_objective
from featviz.objectives.group import PerSample
from featviz.optim.batching import optimized_together
from featviz.optim.callbacks import Callback, Progress, Step
from featviz.optim.loop import optimize
from featviz.optim.result import Result
from featviz.optim.settings import Settings, SettingsKeywords
from featviz.optim.tracing import PAYS, TraceCache
from featviz.options import takes
from featviz.seeds import expand
from featviz.types import Seed, Unpack
from featviz.validation import positive_int


@takes(Settings)
def render(
    model: Model,
    objective: Objective | str | Sequence[Objective | str],
    *,
    settings: Settings | None = None,
    seed: Seed = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool = False,
    **options: Unpack[SettingsKeywords],
) -> Result:
    """Return images that excite a unit of ``model``; a list of objectives gives one image each.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`.
    objective
        An objective or its text; a list of them: one image each.
    settings
        How the image is optimized; keywords replace its fields.
    seed
        An int: image i uses ``seed + i``; or one int for each image, and several seeds for
        a single objective give as many images of it. An image depends on its own seed only.
    batch_size
        Images that are optimized at once; longer lists are processed in batches. By default 16,
        on a GPU 128; where memory does not suffice, fewer at a time go through the network.
    device
        Where to compute: ``None`` is where the model is, ``auto`` the best there is. The
        model itself is not moved.
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
        If no image of the whole list could be optimized.
    """
    if not isinstance(model, Model):
        raise FeatvizError("render takes a featviz.Model: wrap the network, fv.Model(net, mean=…)")
    goal = as_objective(objective)
    several = isinstance(goal, PerSample)
    if isinstance(goal, PerSample):
        count = len(goal.parts)
    else:
        count = len(seed) if isinstance(seed, (list, tuple, range)) else 1
    seeds = expand(seed, count)
    home = model.on(devices.resolve(device, model.device))
    plan = Settings.of(settings, options).resolve(home)
    if batch_size is not None:
        positive_int("batch_size", batch_size)
    together = optimized_together(home.device, batch_size)
    if (goal.relational and not several) or plan.param.relational:
        together = len(seeds)
    watchers = [*callbacks, Progress()] if progress else list(callbacks)
    traces = TraceCache() if len(seeds) > together and plan.steps >= PAYS else None

    # Say what is wrong with the last objective before the first image is rendered.
    plan.check(home, goal, len(seeds))
    parts: list[Result] = []
    for start in range(0, len(seeds), together):
        here = slice(start, start + together)
        try:
            part = optimize(
                home,
                goal.sliced(here),
                seeds=seeds[here],
                settings=plan.settings,
                callbacks=watchers,
                traces=traces,
                record={"verb": "render", "goal": str(goal)},
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
    result.relational = goal.relational
    if result.failures:
        why = "; ".join(dict.fromkeys(result.failures.values()))
        if len(result.failures) == len(result) and not result.interrupted:
            raise OptimizationError(why, result)
        warnings.warn(why, FeatvizWarning, stacklevel=3)
    return result
