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
from typing import Any, Literal

import torch

from featviz.errors import FeatvizError, OptimizationError
from featviz.networks import devices
from featviz.networks.gradients import redirected_relu
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.objectives.group import texts_of
from featviz.optim.best_states import Kept
from featviz.optim.callbacks import Callback, Run, Step, as_callback
from featviz.optim.checkpoint import Checkpoint
from featviz.optim.diagnostics import Watch
from featviz.optim.evaluator import Bound, Traces
from featviz.optim.optimizers import Ascent
from featviz.optim.result import Result
from featviz.optim.tiling import Tiled, number
from featviz.optim.tracing import PAYS
from featviz.param.base import Param
from featviz.transforms import Backdrop, Background, Transform, output_size, prepare
from featviz.types import OptimizerFactory, Precision, Schedule, Tensor

#: Steps in which ReLUs let a dead unit be reached, as in lucid.
REDIRECT = 16
#: Steps after those, after which a picture without any gradient so far is given up.
PATIENCE = 16


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
    until: Objective | None = None,
    keep: Literal["last", "best"] = "last",
    samples: int = 1,
    traces: Traces | None = None,
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
    (:class:`featviz.gradients.redirected_relu`). The model, which stays where it is, comes back as
    it was.

    ``micro`` samples go through the network at a time; by default all on a GPU and on the CPU one,
    where rounding then cannot depend on the batch, or :data:`featviz.optim.evaluator.WIDE` where
    the first step shows that it does not.

    With ``tile`` pixels the network sees the picture in pieces of at most that side
    (:class:`featviz.optim.tiling.Tiled`), so that memory hardly depends on its size. Without
    ``importance`` the result has none.

    A run of :data:`featviz.optim.tracing.PAYS` passes or more traces the network
    (:mod:`featviz.optim.tracing`), and with ``compile`` gives what is left to ``torch.compile``.
    With ``traces`` it is traced whatever the steps, and the next run that is given the same, with
    the same model and precision, need not do it again.

    ``until`` is evaluated in the same pass: a sample for which it is above zero is done, and its
    picture stays as it was scored; the run ends when all are, and ``result.reached`` says after
    how many updates. ``keep="best"`` returns, for the others, not the last picture but the one
    with the highest score. Each step takes the mean of the scores under ``samples`` draws of the
    transforms.

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
    if resume is not None and (until is not None or keep == "best"):
        raise FeatvizError("resume goes with neither until nor keep='best'")
    if samples < 1:
        raise FeatvizError(f"samples must be positive, not {samples}")
    low = devices.half(precision)
    device = model.device
    size = param.shape
    batch = len(seeds)
    if param.transparent and not any(isinstance(t, (Background, Backdrop)) for t in transforms):
        behind = Background() if param.backdrop is None else Backdrop(param.backdrop)
        transforms = (behind, *transforms)
    channels = (param.channels or model.channels) + param.transparent
    kind = Bound if tile is None else functools.partial(Tiled, tile=tile)
    bind = functools.partial(
        kind, model, objective, channels=channels, batch=batch, micro=micro, until=until
    )
    finished = bind(param.seen, traced=traces is not None, traces=traces)
    outer = output_size(transforms, size)
    bound = bind(
        outer,
        traced=steps * number(outer, tile) >= PAYS or traces is not None,
        compiled=compile,
        traces=traces,
    )
    augment = prepare(transforms, seeds, steps * samples, size, device)
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
    scale = devices.gradient_scale(precision)
    watch = Watch(batch, device)
    opened = redirected_relu()
    history = torch.full((steps, batch), torch.nan, device=device)
    heat = torch.zeros(batch, *size, device=device) if importance else None
    progress = torch.linspace(0, 1, steps, device=device)
    texts = texts_of(objective, batch)
    watchers = [as_callback(c) for c in callbacks]
    run = Run(texts, list(seeds), steps)
    done, interrupted = first, False
    kept = Kept(leaves, batch, stops=until is not None, best=keep == "best")

    def climb(index: int) -> Tensor:
        """Set the gradients of step ``index``; return what a minimizer calls the loss."""
        for leaf in leaves:
            leaf.grad = None  # or the last step's would lie beside this one's
        images = param.image(state)
        bound.opened = opened if index < redirect else None
        draws = []
        inputs = leaves if heat is None else [*leaves, images]
        for draw in range(samples):
            seen = augment(images, index * samples + draw)
            with torch.autocast(device.type, low, enabled=low is not None):
                scores, *upstream, redirected, checks = bound.climb(
                    images, seen, progress[index], scale, kept.awake
                )
            ends = [(x, g) for x, g in zip((images, seen), upstream, strict=True) if g is not None]
            slopes = torch.autograd.grad(
                [x for x, _ in ends], inputs, [g for _, g in ends], retain_graph=draw < samples - 1
            )
            draws.append((scores, checks, redirected, *slopes))
            del seen, ends, upstream  # each as large as the pictures
        scores, checks, acted, *gradients = map(_mean, zip(*draws, strict=True))
        del draws, slopes
        if heat is not None:
            heat.add_(gradients.pop().abs().sum(1).nan_to_num(0, 0, 0))
        if kept.awake is not None:  # who is done keeps its score
            awake = torch.tensor(kept.awake, device=device)
            scores = torch.where(awake, scores, history[index - 1])
        norms = watch.see(index, scores, gradients, scale, acted > 0)
        kept.see(index, leaves, scores, checks)
        watch.moved |= kept.done
        for leaf, gradient in zip(leaves, gradients, strict=True):
            usable = norms.isfinite()
            if len(gradient) != batch:  # shared by all samples
                usable = usable.all()[None]
            usable = usable.view(-1, *(1,) * (gradient.ndim - 1))
            leaf.grad = torch.where(usable, gradient, 0).div_(-scale)
        if isinstance(climber, Ascent):
            climber.scores = scores
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
                        kept.hold_(leaves)
                    done = index + 1
                    enough = [callback.on_step(step) for callback in watchers]
                    if any(enough) or kept.over:
                        break
                    if done == redirect + PATIENCE and watch.hopeless():
                        break
            except KeyboardInterrupt:
                interrupted = True
            with torch.no_grad():
                images = param.image(state).detach()
                scores, checks = finished.values(images, param.flatten(images))
                if kept.finish_(done, leaves, scores, checks):
                    images = param.image(state).detach()
                    scores, _ = finished.values(images, param.flatten(images))

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
            reached=None if until is None else kept.reached.cpu(),
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


def _mean(draws: Sequence[Tensor]) -> Tensor:
    return draws[0] if len(draws) == 1 else torch.stack([d.float() for d in draws]).mean(0)


def _normalized(heat: Tensor) -> Tensor:
    largest = heat.flatten(1).amax(1).clamp_min(torch.finfo(heat.dtype).tiny)
    return heat / largest.view(-1, *(1,) * (heat.ndim - 1))
