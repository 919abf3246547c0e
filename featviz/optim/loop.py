"""The ascent loop. Every verb that optimizes an image is this function with other parts.

::

    param ─► image ─► transforms ─► model (truncated) ─► activations ─► score ─► gradient
      ▲                                                                             │
      └──────────────────────── projection ◄──────── optimizer ◄────────────────────┘
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch

from featviz.errors import FeatvizError, OptimizationError
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.optim.ascent import Ascent
from featviz.optim.callbacks import Callback, Step, as_callback
from featviz.optim.checkpoint import Checkpoint
from featviz.optim.optimizers import SampleAscent
from featviz.optim.result import Result
from featviz.optim.settings import Settings, SettingsKeywords
from featviz.optim.tracing import TraceCache
from featviz.types import Tensor, Unpack

#: Steps without redirected ReLUs after which a batch without any gradient is given up.
PATIENCE = 16


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
    """Raise ``objective`` by gradient ascent on the free parameters of ``param``.

    One image for each of ``seeds``. The score of a batch is the sum of its samples', so that
    with an optimizer that works on each number by itself (Adam, SGD, …; not LBFGS) no image
    depends on the others. The model, which stays where it is, comes back as it was. Ctrl-C ends the
    run and returns what there is, with ``interrupted`` set.

    Parameters
    ----------
    model, objective
        What is raised, of which network; one objective for all samples, or one for each.
    seeds
        One for each picture.
    settings, options
        How: :class:`featviz.Settings`, and its fields as keywords. Here, no transforms are applied
        unless they are named.
    until
        An objective evaluated in the same pass: a sample for which it is above zero is done, and
        its image stays as it was scored; the run ends when all are. ``result.reached`` says after
        how many updates.
    keep
        ``best`` returns, of the samples that are not done, not the last image but the one with
        the highest score.
    samples
        Draws of the transforms in each step, of whose scores the mean is raised.
    tile
        The network sees the image in tiles of at most this side, so that memory hardly depends on
        its size (:class:`featviz.optim.tiling.TiledEvaluator`).
    micro
        Samples that go through the network at a time
        (:class:`featviz.optim.gradient_evaluator.GradientEvaluator`).
    importance
        Whether the result has the importance of each pixel.
    traces
        Shares the traced network with other runs of the same model and precision. Without it, a run
        of :data:`featviz.optim.tracing.PAYS` passes or more traces its own.
    resume
        Continue from the checkpoint of an earlier result, made with the same arguments, as if it
        had not ended: the images are the same to the bit.
    callbacks
        :class:`featviz.callbacks.Callback` objects or functions of a step.
    record
        What the result's ``settings`` say besides.

    Raises
    ------
    FeatvizError
        Before the first step, if the objective does not fit the network or the arguments do not go
        together.
    OptimizationError
        If no sample has a gradient, or all became NaN; its ``result`` holds what there is.
    """
    if torch.is_inference_mode_enabled():
        raise FeatvizError("gradients are off in torch.inference_mode(): leave it first")
    if resume is not None and (until is not None or keep == "best"):
        raise FeatvizError("resume goes with neither until nor keep='best'")
    if samples < 1:
        raise FeatvizError(f"samples must be positive, not {samples}")
    if settings is None:
        options.setdefault("transforms", ())
    plan = Settings.of(settings, options).resolve(model)
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
    with contextlib.ExitStack() as closing:
        watchers = [as_callback(callback) for callback in callbacks]
        for watcher in watchers:
            closing.callback(watcher.close)
        with model.session():
            interrupted = _climb(ascent, watchers)
            result = ascent.result(interrupted, dict(record or {}))
        for watcher in watchers:
            watcher.on_end(result)
    if len(result.failures) == len(result) and not interrupted:
        raise OptimizationError(next(iter(result.failures.values())), result)
    return result


def _climb(ascent: Ascent, watchers: Sequence[Callback]) -> bool:
    """Make the steps; return whether Ctrl-C ended them."""
    try:
        for watcher in watchers:
            watcher.on_start(ascent.run)
        for step in ascent.steps():
            loss: Any = functools.partial(_differentiate, ascent, step, bool(watchers))
            ascent.optimizer.step(loss)
            with torch.no_grad():
                ascent.param.project_(ascent.state)
                ascent.best.restore_(ascent.leaves)
            ascent.done = step.index + 1
            stopped = [watcher.on_step(step) for watcher in watchers]
            if any(stopped) or ascent.best.all_done:
                break
            if ascent.done == ascent.redirect + PATIENCE and ascent.diagnostics.all_stuck():
                break
    except KeyboardInterrupt:
        return True
    return False


def _differentiate(ascent: Ascent, step: Step, watched: bool) -> Tensor:
    """Set the gradients of a step; return what a minimizer calls the loss."""
    for leaf in ascent.leaves:
        leaf.grad = None  # or the last step's would lie in memory beside this one's
    images = ascent.param.image(ascent.state)
    ascent.evaluator.redirect(ascent.redirected_relu if step.index < ascent.redirect else None)

    draws = list(_draws(ascent, step, images))
    scores, until, redirected, *gradients = map(_mean, zip(*draws, strict=True))
    del draws
    if ascent.heat is not None:
        ascent.heat.add_(gradients.pop().abs().sum(1).nan_to_num(0, 0, 0))

    scores, norms = ascent.note(step.index, scores, gradients, until, redirected > 0)
    ascent.set_gradients(gradients, norms)
    if isinstance(ascent.optimizer, SampleAscent):
        ascent.optimizer.scores = scores
    shown = images.detach()
    if watched and any(images is leaf for leaf in ascent.leaves):
        shown = shown.clone()  # the update changes the leaf in place
    step.images, step.scores, step.gradient_norms = shown, ascent.history[step.index], norms
    return -scores.sum()


def _draws(ascent: Ascent, step: Step, images: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield scores, ``until``, redirections and gradients for each draw of the transforms.

    The gradients are by the free parameters and, where the importance is wanted, by the images.
    """
    inputs = ascent.leaves if ascent.heat is None else [*ascent.leaves, images]
    for draw in range(ascent.samples):
        seen = ascent.transform(images, step.index * ascent.samples + draw)
        upstream = ascent.evaluator.gradients(
            images, seen, ascent.progress[step.index], ascent.best.active
        )
        ends = [(images, upstream.by_images), (seen, upstream.by_seen)]
        outputs, outer = zip(*[(x, g) for x, g in ends if g is not None], strict=True)
        more = draw < ascent.samples - 1
        gradients = torch.autograd.grad(outputs, inputs, outer, retain_graph=more)
        yield upstream.scores, upstream.until, upstream.redirected, *gradients
        del seen, ends, outputs, outer, upstream, gradients  # each as large as the images


def _mean(rows: tuple[Tensor, ...]) -> Tensor:
    return rows[0] if len(rows) == 1 else torch.stack([row.float() for row in rows]).mean(0)
