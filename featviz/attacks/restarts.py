"""Run an attack in batches, with restarts for images for which it failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from featviz.attacks.algorithms import ALGORITHMS
from featviz.attacks.criterion import AttackCriterion
from featviz.attacks.settings import AttackSettings
from featviz.errors import OptimizationError
from featviz.networks.model import Model
from featviz.optim.callbacks import Callback, Run, Step
from featviz.optim.collecting import predicted_classes
from featviz.optim.evaluator import scores
from featviz.optim.loop import optimize
from featviz.optim.result import Result
from featviz.optim.tracing import TraceCache
from featviz.param import Bounded
from featviz.param.balls import LEVELS, length
from featviz.types import Tensor

#: Restart r of an image uses the seed ``seed + r * SEED_STRIDE``.
SEED_STRIDE = 2**32
#: How far values may be from 8-bit levels, as floats, to count as such.
ROUNDING = 1e-6


class _Stop(Callback):
    def on_start(self, run: Run) -> None:
        raise KeyboardInterrupt


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackRun:
    """An attack on one network: its resolved settings, and how to run it."""

    model: Model
    settings: AttackSettings
    batch_size: int
    traces: TraceCache | None = None
    callbacks: Sequence[Callback | Callable[[Step], Any]] = ()
    record: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def stops_early(self) -> bool:
        """Whether an image is no longer perturbed once it succeeds."""
        return self.settings.early_exit and not self.settings.universal

    def without_random_start(self) -> AttackRun:
        """Return the same run, starting from the images themselves."""
        return dataclasses.replace(
            self, settings=dataclasses.replace(self.settings, random_start=False)
        )

    def stopped(self) -> AttackRun:
        """Return a run that ends before its first step, leaving the images unchanged."""
        return dataclasses.replace(self.without_random_start(), callbacks=[_Stop()])

    def in_batches(
        self, images: Tensor, criterion: AttackCriterion, eps: Tensor, seeds: list[int]
    ) -> list[Result]:
        """Attack ``images`` (B, C, *size) with the radii ``eps`` (B,), in batches.

        After Ctrl-C, the remaining images are left unchanged.
        """
        run, parts = self, []
        for start in range(0, len(images), self.batch_size):
            batch = slice(start, start + self.batch_size)
            rows = range(len(images))[batch]
            selected = criterion.select(rows)
            parts.append(run._batch(images[batch], selected, eps[batch], seeds[batch]))
            if parts[-1].interrupted:
                run = run.stopped()
        return parts

    def one_by_one(
        self, images: Tensor, criterion: AttackCriterion, eps: Tensor, seeds: list[int]
    ) -> list[Result]:
        """Attack ``images`` and return one result each; those already successful are unchanged."""
        count = len(images)
        already_met = torch.zeros(count, dtype=torch.bool)
        if criterion.until and self.stops_early:
            already_met = criterion.is_met(criterion.before)
        results: dict[int, Result] = {}
        interrupted = False
        for run, selected in ((self.without_random_start(), already_met), (self, ~already_met)):
            rows = selected.nonzero().flatten().tolist()
            if not rows:
                continue
            parts = (run.stopped() if interrupted else run).in_batches(
                images[rows], criterion.select(rows), eps[rows], [seeds[i] for i in rows]
            )
            interrupted |= parts[-1].interrupted
            singles = [part[k] for part in parts for k in range(len(part))]
            results |= dict(zip(rows, singles, strict=True))
        return [results[i] for i in range(count)]

    def _batch(
        self, images: Tensor, criterion: AttackCriterion, eps: Tensor, seeds: list[int]
    ) -> Result:
        settings, algorithm = self.settings, ALGORITHMS[self.settings.method]
        radii = eps[:1] if settings.universal else eps
        param = Bounded(
            images=images,
            eps=tuple(radii.tolist()),
            norm=settings.norm,
            start="uniform" if settings.random_start and algorithm.random_start else "zero",
            eight_bit=bool(settings.eight_bit),
            shared=settings.universal,
        )
        rate = radii * algorithm.rate(settings.steps)
        if settings.step_size is not None:
            rate = torch.full_like(rate, settings.step_size)
        try:
            return optimize(
                self.model,
                criterion.objective,
                param=param,
                transforms=settings.transforms,
                steps=settings.steps,
                seeds=seeds,
                optimizer=algorithm.update(param, rate, settings.steps),
                redirect=0,
                precision=settings.precision,
                samples=settings.eot,
                until=criterion.success if self.stops_early else None,
                keep=algorithm.keep,
                traces=self.traces,
                callbacks=self.callbacks,
                record=self.record,
            )
        except OptimizationError as error:  # without a gradient, the attack fails
            return error.result

    def judge(
        self, images: Tensor, criterion: AttackCriterion, originals: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the predicted classes (B,) of finished images, and which succeeded."""
        after = predicted_classes(self.model, images, criterion.layer, traces=self.traces)
        if criterion.until:
            return after, criterion.is_met(after)
        scores_after, scores_before = (
            scores(self.model, criterion.objectives, batch, precision=self.settings.precision)
            for batch in (images, originals)
        )
        return after, scores_after > scores_before

    def distance(self, images: Tensor, originals: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return the norm (B,) of the change from ``inputs``, exact for 8-bit levels.

        ``originals`` (the default) are the inputs, rounded if the results are; what rounding adds
        to the change of inputs that are not 8-bit images counts too.
        """
        inputs = originals if inputs is None else inputs
        norm = length(images.double() - inputs.double(), self.settings.norm)
        if self.settings.eight_bit:
            delta = images.double() - originals.double()
            exact = length((delta * LEVELS).round() / LEVELS, self.settings.norm)
            levels = (originals - inputs).abs().flatten(1).amax(1) < ROUNDING
            norm = torch.where(levels, exact, norm)
        return norm


@dataclasses.dataclass
class Attacked:
    """Finished images with one result each (one for all if universal), and their success."""

    results: list[Result]
    after: Tensor
    success: Tensor


def attack_with_restarts(
    run: AttackRun, images: Tensor, criterion: AttackCriterion, eps: Tensor, seeds: list[int]
) -> Attacked:
    """Attack, restart for images for which it failed, and return the best run of each image."""
    if run.settings.universal:
        return _universal(run, images, criterion, eps, seeds)
    count = len(images)
    results: list[Result] = []
    after, success = torch.full((count,), -1), torch.zeros(count, dtype=torch.bool)
    rows = list(range(count))
    for restart in range(run.settings.restarts):
        shifted = [seeds[i] + restart * SEED_STRIDE for i in rows]
        singles = run.one_by_one(images[rows], criterion.select(rows), eps[rows], shifted)
        classes, fooled = _judged(run, singles, criterion.select(rows), images[rows])
        if not restart:
            results, after, success = singles, classes, fooled
        else:
            for k, i in enumerate(rows):
                if fooled[k] > success[i] or bool(singles[k].scores > results[i].scores):
                    singles[k].seeds = [seeds[i]]
                    results[i], after[i], success[i] = singles[k], classes[k], fooled[k]
        if any(single.interrupted for single in singles):
            results[0].interrupted = True  # even if no image of this run is returned
            break
        if criterion.until:
            rows = [i for i in range(count) if not success[i]]
        if not rows:
            break
    return Attacked(results, after, success)


def _universal(
    run: AttackRun, images: Tensor, criterion: AttackCriterion, eps: Tensor, seeds: list[int]
) -> Attacked:
    """Return the run with the most successful images; among ties, the highest mean score."""
    best: tuple[tuple[int, float], Attacked] | None = None
    for restart in range(run.settings.restarts):
        shifted = [seed + restart * SEED_STRIDE for seed in seeds]
        (result,) = run.in_batches(images, criterion, eps, shifted)
        result.seeds = list(seeds)
        attacked = Attacked([result], *_judged(run, [result], criterion, images))
        rank = int(attacked.success.sum()), float(result.scores.mean())
        if best is None or rank > best[0]:
            best = rank, attacked
        if result.interrupted or (criterion.until and attacked.success.all()):
            break
    assert best is not None
    best[1].results[0].interrupted |= result.interrupted
    return best[1]


def _judged(
    run: AttackRun, results: list[Result], criterion: AttackCriterion, originals: Tensor
) -> tuple[Tensor, Tensor]:
    """Judge finished images, repeating that after Ctrl-C so that none is lost."""
    finished = torch.cat([result.images for result in results])
    try:
        return run.judge(finished, criterion, originals)
    except KeyboardInterrupt:
        results[0].interrupted = True
        return run.judge(finished, criterion, originals)
