"""The loop. Every verb that optimizes an image is this function with other parts.

::

    param ─► image ─► transforms ─► model (truncated) ─► activations ─► score ─► gradient
      ▲                                                                             │
      └──────────────────────── projection ◄──────── optimizer ◄────────────────────┘
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz.bound import Bound
from featviz.callbacks import Callback, Run, Step, as_callback
from featviz.checkpoint import Checkpoint
from featviz.errors import FeatvizError, OptimizationError
from featviz.gradients import redirected_relu
from featviz.model import Model
from featviz.objectives.base import Objective
from featviz.objectives.group import PerSample
from featviz.param.base import Param
from featviz.result import Result
from featviz.tiles import Tiled, number
from featviz.trace import PAYS
from featviz.transforms import Background, Transform, output_size, prepare
from featviz.types import OptimizerFactory, Precision, Schedule, Tensor
from featviz.watch import Watch

#: Steps in which ReLUs let a dead unit be reached, as in lucid.
REDIRECT = 16
#: Steps after those, after which a picture without any gradient so far is given up.
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
    redirect: int = REDIRECT,
    micro: int | None = None,
    tile: int | None = None,
    importance: bool = True,
    resume: Checkpoint | None = None,
    precision: Precision = "fp32",
    compile: bool = False,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    settings: dict[str, Any] | None = None,
) -> Result:
    """Raise ``objective`` by gradient ascent on the free parameters of ``param``.

    One picture for each of ``seeds``. The score of a batch is the sum of its samples', so that
    with an optimizer that works on each number by itself (Adam, SGD, …; not LBFGS) no picture
    depends on the others. In the first ``redirect`` steps ReLUs are redirected
    (:class:`featviz.gradients.redirected_relu`). The model, which stays where it is, comes back
    as it was.

    ``micro`` samples go through the network at a time; by default all on a GPU and on the CPU one,
    where rounding then cannot depend on the batch, or :data:`featviz.bound.WIDE` where the first
    step shows that it does not.

    With ``tile`` pixels the network sees the picture in pieces of at most that side
    (:class:`featviz.tiles.Tiled`), so that memory hardly depends on its size. Without
    ``importance`` the result has none.

    A run of :data:`featviz.trace.PAYS` passes or more traces the network
    (:mod:`featviz.trace`), and with ``compile`` gives what is left to ``torch.compile``.

    ``resume`` goes on from the checkpoint of an earlier result, made with the same arguments,
    as if it had not ended: the pictures are the same to the bit.

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
    if torch.is_inference_mode_enabled():
        raise FeatvizError("gradients are off in torch.inference_mode(): leave it first")
    device = model.device
    size = param.shape
    batch = len(seeds)
    if param.transparent and not any(isinstance(t, Background) for t in transforms):
        transforms = (Background(), *transforms)
    channels = (param.channels or model.channels) + param.transparent
    kind = Bound if tile is None else functools.partial(Tiled, tile=tile)
    bind = functools.partial(kind, model, objective, channels=channels, batch=batch, micro=micro)
    finished, outer = bind(size), output_size(transforms, size)
    bound = bind(outer, traced=steps * number(outer, tile) >= PAYS, compiled=compile)
    augment = prepare(transforms, seeds, steps, size, device)
    state = param.init(seeds, device)
    first = 0
    if resume is not None:
        resume.restore_(state)
        first = resume.done
    leaves = list(state.values())
    climber = optimizer(leaves)
    rates = [group["lr"] for group in climber.param_groups]
    if resume is not None:
        climber.load_state_dict(resume.optimizer)
    low = _DTYPES[precision]
    scale = _HALF_SCALE if precision == "fp16" else 1.0
    watch = Watch(batch, device)
    opened = redirected_relu()
    history = torch.full((steps, batch), torch.nan, device=device)
    heat = torch.zeros(batch, *size, device=device) if importance else None
    progress = torch.linspace(0, 1, steps, device=device)
    texts = objective_texts(objective, batch)
    watchers = [as_callback(c) for c in callbacks]
    run = Run(texts, list(seeds), steps)
    done, interrupted = first, False

    def climb(index: int) -> Tensor:
        """Set the gradients of step ``index``; return what a minimizer calls the loss."""
        for leaf in leaves:
            leaf.grad = None  # or the last step's would lie beside this one's
        images = param.image(state)
        seen = augment(images, index)
        bound.opened = opened if index < redirect else None
        with torch.autocast(device.type, low, enabled=low is not None):
            scores, *upstream, acted = bound.climb(images, seen, progress[index], scale)
        ends = [(x, g) for x, g in zip((images, seen), upstream, strict=True) if g is not None]
        inputs = leaves if heat is None else [*leaves, images]
        found = torch.autograd.grad([x for x, _ in ends], inputs, [g for _, g in ends])
        del seen, ends, upstream  # each as large as the pictures
        gradients = found[: len(leaves)]
        if heat is not None:
            heat.add_(found[-1].abs().sum(1).nan_to_num(0, 0, 0))
        norms = watch.see(index, scores, gradients, scale, acted)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            usable = norms.isfinite()
            if len(gradient) != batch:  # shared by all samples
                usable = usable.all()[None]
            usable = usable.view(-1, *(1,) * (gradient.ndim - 1))
            leaf.grad = torch.where(usable, gradient, 0).div_(-scale)
        history[index] = scores
        shown = images.detach()
        if watchers and any(images is leaf for leaf in leaves):
            shown = shown.clone()  # the update changes the leaf in place
        step.images, step.scores, step.gradient_norms = shown, history[index], norms
        return -scores.sum()

    with contextlib.ExitStack() as closing:
        for callback in watchers:
            closing.callback(callback.close)
        with model.session():
            try:
                for callback in watchers:
                    callback.on_start(run)
                for index in range(first, steps):
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
                    if done == redirect + PATIENCE and watch.hopeless():
                        break
            except KeyboardInterrupt:
                interrupted = True
            with torch.no_grad():
                images = param.image(state).detach()
                scores = finished.values(images, param.flatten(images))

        result = Result(
            images=images.float().cpu(),
            scores=scores.float().cpu(),
            history=history[first:done].cpu(),
            objectives=texts,
            seeds=list(seeds),
            settings=dict(settings or {}),
            failures={}
            if interrupted or done == first
            else watch.failures(texts, scores, done > redirect),
            redirected=watch.redirected.cpu(),
            importance=None if heat is None else _normalized(heat).cpu(),
            state={name: t.detach().cpu() for name, t in state.items()},
            checkpoint=Checkpoint.of(state, climber, done),
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


def _normalized(heat: Tensor) -> Tensor:
    largest = heat.flatten(1).amax(1).clamp_min(torch.finfo(heat.dtype).tiny)
    return heat / largest.view(-1, *(1,) * (heat.ndim - 1))
