"""The ascent loop. Every verb that optimizes images calls it with different parts.

::

    param ─► image ─► transforms ─► model (truncated) ─► activations ─► score ─► gradient
      ▲                                                                             │
      └──────────────────────── projection ◄──────── optimizer ◄────────────────────┘
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch

from featviz.errors import FeatvizError, OptimizationError
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.objectives.text import objective as as_objective
from featviz.optim.ascent import Ascent
from featviz.optim.callbacks import Callback, Step, as_callback
from featviz.optim.checkpoint import Checkpoint
from featviz.optim.optimizers import SampleAscent
from featviz.optim.pullback import pulled_back
from featviz.optim.result import Result
from featviz.optim.settings import Settings
from featviz.optim.settings_keywords import SettingsKeywords
from featviz.optim.tracing import TraceCache
from featviz.process_state import shielded
from featviz.seeds import expand
from featviz.types import Tensor, Unpack
from featviz.validation import functions, one_of, positive_int

#: Steps without redirected ReLUs after which a run without any gradient is aborted.
PATIENCE = 16


@shielded
def optimize(
    model: Model,
    objective: Objective,
    *,
    seeds: Sequence[int],
    settings: Settings | None = None,
    until: Objective | None = None,
    keep: Literal["last", "best"] = "last",
    samples: int = 1,
    tile: int | None = None,
    micro: int | None = None,
    importance: bool = True,
    traces: TraceCache | None = None,
    resume: Checkpoint | None = None,
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    record: dict[str, Any] | None = None,
    **options: Unpack[SettingsKeywords],
) -> Result:
    """Maximize ``objective`` by gradient ascent on the free parameters of ``param``.

    Return one image for each of ``seeds``. The loss is summed over the batch, so that with an
    elementwise optimizer (Adam, SGD, …; not LBFGS) the images are independent. The model is left
    unchanged, on its device. Ctrl-C ends the run and returns the result so far, with
    ``interrupted`` set.

    Parameters
    ----------
    model, objective
        The network and the objective to maximize: one for all samples, or one for each.
    seeds
        One seed for each image.
    settings, options
        A :class:`featviz.Settings`, and its fields as keywords. Unlike in :func:`featviz.render`,
        there are no transforms, prior, weight decay, focus or steps at half the size by default.
    until
        A stopping criterion, evaluated in the same pass: a sample for which it is above zero is
        done, and its image no longer changes; the run ends when all are done. ``result.reached``
        has the number of updates.
    keep
        ``best`` returns the image with the highest score instead of the last one, for samples that
        are not done.
    samples
        Random draws of the transforms in each step, over which the score is averaged.
    tile
        Largest side of the tiles that the network processes one by one, so that memory hardly
        depends on the image size (:class:`featviz.optim.tiling.TiledEvaluator`).
    micro
        Samples per forward pass (:class:`featviz.optim.gradient_evaluator.GradientEvaluator`).
    importance
        Whether to compute the importance of each pixel.
    traces
        Shares the traced network with other runs of the same model and precision. Without it, a run
        of :data:`featviz.optim.tracing.PAYS` passes or more traces the network itself.
    resume
        The checkpoint of an earlier result with the same arguments; the images are bitwise
        identical to those of an uninterrupted run.
    callbacks
        :class:`featviz.callbacks.Callback` objects or functions of a step.
    record
        Additional entries for the result's ``settings``.

    Raises
    ------
    FeatvizError
        Before the first step, if the objective does not fit the network or the arguments are
        inconsistent.
    OptimizationError
        If no sample has a gradient, or all became NaN; its ``result`` holds the images so far.
    """
    if not isinstance(model, Model):
        raise FeatvizError(f"optimize takes a featviz.Model, not {type(model).__name__}")
    objective = as_objective(objective)
    until = None if until is None else as_objective(until)
    callbacks = functions("callbacks", callbacks)
    samples, seeds = positive_int("samples", samples), expand(seeds, _count(seeds))
    tile = None if tile is None else positive_int("tile", tile)
    micro = None if micro is None else positive_int("micro", micro)
    one_of("keep", keep, ("last", "best"))
    if not isinstance(resume, (Checkpoint, type(None))):
        raise FeatvizError(f"resume takes a featviz.Checkpoint, not {type(resume).__name__}")
    if resume is not None and (until is not None or keep == "best"):
        raise FeatvizError("resume cannot be combined with until or keep='best'")
    if settings is None:
        options.setdefault("transforms", ())
        options.setdefault("prior", 0.0)
        options.setdefault("coarse", 0.0)
        options.setdefault("focus", 0.0)
        if len(model.size) == 2:  # a signal's steps have theirs
            options.setdefault("weight_decay", 0.0)
    given = Settings.of(settings, options)
    if until is not None or keep == "best" or tile is not None:
        if given.coarse:
            raise FeatvizError(
                "coarse cannot be combined with until, keep='best' or tile: their scores are those "
                "of one size; use coarse=0"
            )
        given = dataclasses.replace(given, coarse=0.0)
    plan = given.resolve(model)
    ascent = Ascent(
        model,
        objective,
        plan,
        seeds,
        until=until,
        best=keep == "best",
        samples=samples,
        tile=tile,
        micro=micro,
        importance=importance,
        traces=traces,
        resume=resume,
    )
    with contextlib.ExitStack() as stack:
        observers = [as_callback(callback) for callback in callbacks]
        for observer in observers:
            stack.callback(observer.close)
        with model.session():
            interrupted = _run_steps(ascent, observers)
            result = ascent.result(interrupted, dict(record or {}))
        for observer in observers:
            observer.on_end(result)
    if len(result.failures) == len(result) and not interrupted:
        raise OptimizationError(next(iter(result.failures.values())), result)
    return result


def _count(seeds: Any) -> int:
    """Return the number of seeds; raise :class:`FeatvizError` if they are no sequence."""
    if isinstance(seeds, Sequence) and not isinstance(seeds, (str, bytes)):
        return len(seeds)
    raise FeatvizError(f"seeds must be a list with one seed for each image, not {seeds!r}")


def _run_steps(ascent: Ascent, observers: Sequence[Callback]) -> bool:
    """Run the steps; return whether Ctrl-C interrupted them."""
    try:
        for observer in observers:
            observer.on_start(ascent.run)
        for step in ascent.steps():
            closure: Any = functools.partial(_differentiate, ascent, step, bool(observers))
            ascent.optimizer.step(closure)
            with torch.no_grad():
                ascent.param.project_(ascent.state)
                ascent.best.restore_(ascent.leaves)
            ascent.done = step.index + 1
            stopped = [observer.on_step(step) for observer in observers]
            if any(stopped) or ascent.best.all_done:
                break
            if ascent.done == ascent.redirect + PATIENCE and ascent.diagnostics.all_stuck():
                break
    except KeyboardInterrupt:
        return True
    return False


def _differentiate(ascent: Ascent, step: Step, observed: bool) -> Tensor:
    """Compute the gradients of a step; return the loss, the negative score."""
    for leaf in ascent.leaves:
        leaf.grad = None  # frees the last step's gradient before computing this one's
    images = ascent.param.image(ascent.state)
    redirect = ascent.redirected_relu if step.index < ascent.redirect else None
    ascent.stage(step.index).evaluator.redirect(redirect)

    draws = list(_draws(ascent, step, images))
    scores, until, redirected, *gradients = map(_mean, zip(*draws, strict=True))
    del draws
    if ascent.heat is not None:
        ascent.heat.add_(gradients.pop().abs().sum(1).nan_to_num(0, 0, 0))

    scores, norms = ascent.track_step(step.index, scores, gradients, until, redirected > 0)
    ascent.set_gradients(step.index, gradients, norms)
    if isinstance(ascent.optimizer, SampleAscent):
        ascent.optimizer.scores = scores
    step_images = images.detach()
    if observed and any(images is leaf for leaf in ascent.leaves):
        step_images = step_images.clone()  # the update modifies the leaf in place
    step.images, step.scores, step.gradient_norms = step_images, ascent.history[step.index], norms
    return -scores.sum()


def _draws(ascent: Ascent, step: Step, images: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield scores, ``until``, redirections and gradients for each draw of the transforms.

    The gradients are with respect to the free parameters and, for the importance, the images.
    """
    stage = ascent.stage(step.index)
    shown = stage.shown(images)
    for draw in range(ascent.samples):
        index = step.index * ascent.samples + draw
        seen = stage.transform(shown, index)
        if stage.noise is not None:
            stage.noise.draw_(index)
        upstream = stage.evaluator.gradients(
            shown, seen, ascent.progress[step.index], ascent.best.active
        )
        rest = ascent.leaves, ascent.focus, ascent.heat is not None, draw < ascent.samples - 1
        gradients = pulled_back(upstream, seen, shown, images, *rest)
        yield upstream.scores, upstream.until, upstream.redirected, *gradients
        # Each is as large as the images.
        del seen, upstream, gradients


def _mean(rows: tuple[Tensor, ...]) -> Tensor:
    return rows[0] if len(rows) == 1 else torch.stack([row.float() for row in rows]).mean(0)
