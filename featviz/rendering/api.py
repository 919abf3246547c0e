"""Feature visualization: optimize an image, starting from noise, to activate a unit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from featviz.errors import FeatvizWarning, OptimizationError
from featviz.networks import devices
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives import objective as as_objective
from featviz.objectives.group import PerSample
from featviz.optim import stages
from featviz.optim.batching import optimized_together
from featviz.optim.callbacks import Callback, Step, watched
from featviz.optim.loop import optimize
from featviz.optim.resolved import Plan
from featviz.optim.result import Result
from featviz.optim.settings import Settings
from featviz.optim.settings_keywords import SettingsKeywords
from featviz.optim.tracing import PAYS, TraceCache
from featviz.options import takes
from featviz.seeds import expand
from featviz.types import Seed, Unpack
from featviz.validation import positive_int


@takes(Settings)
def render(
    model: Model | str,
    objective: Objective | str | Sequence[Objective | str],
    *,
    settings: Settings | None = None,
    seed: Seed = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool | None = None,
    **options: Unpack[SettingsKeywords],
) -> Result:
    """Render images that maximize ``objective``; a list of objectives gives one image each.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`, or the name of a network.
    objective
        An objective or its text, or a list of them for one image each.
    settings
        How the images are optimized; keyword arguments override its fields.
    seed
        An int (image i uses ``seed + i``), or one int for each image. Several seeds for a single
        objective give one image each. An image depends only on its own seed.
    batch_size
        Images that are optimized together; more are processed in batches. Default: 16 on a CPU,
        128 elsewhere. If memory runs out, fewer go through the network at a time.
    device
        Device to compute on: ``None`` is the model's own, ``auto`` the best one available. The
        model itself is not moved.
    callbacks
        :class:`featviz.callbacks.Callback` objects or functions of a step.
    progress
        Show a progress bar; None, the default: in interactive sessions and notebooks.

    Returns
    -------
    Result
        ``images`` (B, C, H, W), ``scores`` (B,), ``history`` (steps, B). Images that could not be
        optimized are listed in ``failures``, with a warning.

    Raises
    ------
    FeatvizError
        For invalid input, before the first step.
    OptimizationError
        If none of the images could be optimized.
    """
    model = as_model(model, "render")
    goal = as_objective(objective)
    is_per_sample = isinstance(goal, PerSample)
    if isinstance(goal, PerSample):
        count = len(goal.parts)
    else:
        count = len(seed) if isinstance(seed, (list, tuple, range)) else 1
    seeds = expand(seed, count)
    network = model.on(devices.resolve(device, model.device))
    plan = Settings.of(settings, options).resolve(network)
    if batch_size is not None:
        positive_int("batch_size", batch_size)
    per_batch = optimized_together(network.device, batch_size)
    if (goal.relational and not is_per_sample) or plan.param.relational:
        per_batch = len(seeds)
    observers = watched(callbacks, progress)
    traces = TraceCache() if len(seeds) > per_batch and plan.steps >= PAYS else None

    # Check all objectives before the first image is rendered.
    plan.check(network, goal, len(seeds))
    parts: list[Result] = []
    for rows in _batches(network, goal, plan, len(seeds), per_batch):
        try:
            part = optimize(
                network,
                goal.sliced(rows),
                seeds=seeds[rows],
                settings=plan.settings,
                callbacks=observers,
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
        reasons = "; ".join(dict.fromkeys(result.failures.values()))
        if len(result.failures) == len(result) and not result.interrupted:
            raise OptimizationError(reasons, result)
        warnings.warn(reasons, FeatvizWarning, stacklevel=3)
    return result


def _batches(
    model: Model, goal: Objective, plan: Plan, count: int, per_batch: int
) -> Iterator[slice]:
    """Yield the batches of ``count`` images: neighbours that all begin at half the size, or none.

    In one batch with others, an image would depend on their objectives.
    """
    small = [False] * count
    if plan.coarse and isinstance(goal, PerSample):
        small = [stages.gains(part, model, plan.param.shape) for part in goal.parts]
    start = 0
    for end in range(1, count + 1):
        if end == count or end - start == per_batch or small[end] != small[start]:
            yield slice(start, end)
            start = end
