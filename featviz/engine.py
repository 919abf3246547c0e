"""The loop. Every verb that optimizes an image is this function with other parts.

::

    param ─► image ─► transforms ─► model (truncated) ─► activations ─► score ─► gradient
      ▲                                                                             │
      └──────────────────────── projection ◄──────── optimizer ◄────────────────────┘
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz.callbacks import Callback, Run, Step, as_callback
from featviz.errors import FeatvizError, OptimizationError
from featviz.model import Model
from featviz.objectives.base import Objective
from featviz.objectives.group import PerSample
from featviz.objectives.scene import Scene, Target
from featviz.param.base import Param
from featviz.result import Result
from featviz.transforms import Transform, output_size, prepare
from featviz.types import OptimizerFactory, Precision, Schedule, Tensor

#: Steps after which a picture without any gradient so far is given up.
PATIENCE = 16
_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Keeps small half-precision gradients from vanishing; optimizers see it divided out again.
_HALF_SCALE = 1024.0


def optimize(
    model: Model,
    objective: Objective,
    *,
    param: Param,
    transforms: Sequence[Transform] = (),
    steps: int,
    seeds: Sequence[int],
    optimizer: OptimizerFactory,
    schedule: Schedule | None = None,
    precision: Precision = "fp32",
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    settings: dict[str, Any] | None = None,
) -> Result:
    """Raise ``objective`` by gradient ascent on the free parameters of ``param``.

    One picture for each of ``seeds``. The score of a batch is the sum of its samples', so that
    with an optimizer that works on each number by itself (Adam, SGD, …; not LBFGS) no picture
    depends on the others. The model, which stays where it is, comes back as it was.

    Ctrl-C ends the run and returns what there is, with ``interrupted`` set.

    Raises
    ------
    FeatvizError
        If the objective does not fit the network, before the first step.
    OptimizationError
        If no sample has a gradient, or all became NaN; its ``result`` holds what there is.
    """
    if steps < 1:
        raise FeatvizError(f"steps must be positive, not {steps}")
    device = model.device
    size = param.shape
    batch = len(seeds)
    objective.bind(Target.of(model, size, batch))  # what is wrong is said for the picture's size
    seen_size = output_size(transforms, size)
    target = Target.of(model, seen_size, batch)
    score, layers, table = objective.bind(target), objective.layers(target), model.layers(seen_size)
    augment = prepare(transforms, seeds, steps, size, device)
    state = param.init(seeds, device)
    leaves = list(state.values())
    climber = optimizer(leaves)
    rates = [group["lr"] for group in climber.param_groups]
    low = _DTYPES[precision]
    scale = _HALF_SCALE if precision == "fp16" else 1.0
    watch = _Watch(batch, device)
    history = torch.full((steps, batch), torch.nan, device=device)
    texts = objective_texts(objective, batch)
    watchers = [as_callback(c) for c in callbacks]
    run = Run(texts, list(seeds), steps)
    done, interrupted = 0, False

    def climb(index: int) -> Tensor:
        """Set the gradients of step ``index``; return what a minimizer calls the loss."""
        images = param.image(state)
        seen = augment(images, index)
        with torch.autocast(device.type, low) if low else contextlib.nullcontext():
            activations = model.capture(seen, layers, table)
        scores = score(Scene(images, {k: a.float() for k, a in activations.items()}))
        total = scores.sum()
        if not total.requires_grad:
            raise FeatvizError(f"objective {objective} does not depend on the image")
        gradients = torch.autograd.grad(total * scale, leaves)
        norms = watch.see(index, scores, gradients, scale)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            usable = norms.isfinite().view(-1, *(1,) * (gradient.ndim - 1))
            leaf.grad = torch.where(usable, gradient / -scale, 0)
        history[index] = scores.detach()
        step.images, step.scores, step.gradient_norms = images.detach(), history[index], norms
        return -total.detach()

    for callback in watchers:
        callback.on_start(run)
    with model.session():
        try:
            for index in range(steps):
                step = Step(index, run)
                if schedule is not None:
                    for group, rate in zip(climber.param_groups, rates, strict=True):
                        group["lr"] = rate * schedule(index / max(steps - 1, 1))
                climber.step(functools.partial(climb, index))  # type: ignore[arg-type]
                with torch.no_grad():
                    param.project_(state)
                done = index + 1
                enough = [callback.on_step(step) for callback in watchers]
                if any(enough):
                    break
                if done == PATIENCE and watch.hopeless():
                    break
        except KeyboardInterrupt:
            interrupted = True
        with torch.no_grad():
            images = param.image(state).detach()
            scores = objective(model, images).detach()

    result = Result(
        images=images.float().cpu(),
        scores=scores.float().cpu(),
        history=history[:done].cpu(),
        objectives=texts,
        seeds=list(seeds),
        settings=dict(settings or {}),
        failures=watch.failures(texts, scores) if done else {},
        interrupted=interrupted,
    )
    for callback in watchers:
        callback.on_end(result)
    if len(result.failures) == batch and not interrupted:
        raise OptimizationError(next(iter(result.failures.values())), result)
    return result


def objective_texts(objective: Objective, batch: int) -> list[str]:
    """Return the text of each sample's objective."""
    if isinstance(objective, PerSample):
        return [str(part) for part in objective.parts]
    return [str(objective)] * batch


class _Watch:
    """Notes, on the device and without waiting for it, which samples have a usable gradient."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self.moved = torch.zeros(batch, dtype=torch.bool, device=device)
        self.broken = torch.full((batch,), -1, device=device)  # the first step that was not finite

    def see(self, index: int, scores: Tensor, gradients: Sequence[Tensor], scale: float) -> Tensor:
        """Return the norm of each sample's gradient (B,); NaN where the score is not finite."""
        squares = [g.detach().flatten(1).square().sum(1) for g in gradients]
        norms = torch.stack(squares).sum(0).sqrt() / scale
        norms = torch.where(scores.detach().isfinite(), norms, torch.nan)
        finite = norms.isfinite()
        self.moved |= finite & (norms > 0)
        self.broken = torch.where((self.broken < 0) & ~finite, index, self.broken)
        return norms

    def hopeless(self) -> bool:
        """Tell whether no sample ever had a usable gradient; waits for the device."""
        return not bool(self.moved.any())

    def failures(self, texts: list[str], scores: Tensor) -> dict[int, str]:
        """Say for each sample that failed what happened to it."""
        found = {}
        columns = (self.moved.tolist(), self.broken.tolist(), scores.isfinite().tolist())
        for i, (moved, broken, finite) in enumerate(zip(*columns, strict=True)):
            if not finite or (not moved and broken >= 0):
                found[i] = (
                    f"objective {texts[i]} became NaN or infinite at step {max(broken, 0)}: "
                    "lower lr, or use precision fp32"
                )
            elif not moved:
                found[i] = (
                    f"objective {texts[i]} has no gradient: the unit is dead or does not depend "
                    "on the image; try another seed or a layer before its ReLU"
                )
        return found


def adam(lr: float) -> OptimizerFactory:
    """Return Adam with learning rate ``lr``, in one kernel where the device has one."""

    def make(leaves: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(leaves, lr=lr, fused=leaves[0].device.type in ("cpu", "cuda"))

    return make


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Let the learning rate fall along half a cosine, from 1 to ``end``."""

    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * progress)) / 2
