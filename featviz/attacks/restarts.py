"""Running an attack: in batches, and again for the images that it failed with."""

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

#: Restart r of an image draws as the seed ``seed + r * SEED_STRIDE`` would.
SEED_STRIDE = 2**32


class _Stop(Callback):
    def on_start(self, run: Run) -> None:
        raise KeyboardInterrupt


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackRun:
    """An attack on one network: its settings, resolved, and how it is executed."""

    model: Model
    settings: AttackSettings
    batch_size: int
    traces: TraceCache | None = None
    callbacks: Sequence[Callback | Callable[[Step], Any]] = ()
    record: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def stops_early(self) -> bool:
        """Whether an image is left alone once it succeeds."""
        return self.settings.early_exit and not self.settings.universal

    def without_random_start(self) -> AttackRun:
        """Return the run that starts at the images themselves."""
        return dataclasses.replace(
            self, settings=dataclasses.replace(self.settings, random_start=False)
        )

    def stopped(self) -> AttackRun:
        """Return the run that ends before its first step."""
        return dataclasses.replace(self.without_random_start(), callbacks=[_Stop()])

    def in_batches(
        self, images: Tensor, criterion: AttackCriterion, eps: Tensor, seeds: list[int]
    ) -> list[Result]:
        """Attack ``images`` (B, C, *size) with the radii ``eps`` (B,), in batches.

        After Ctrl-C the others stay as they are.
        """
        run, parts = self, []
        for start in range(0, len(images), self.batch_size):
            here = slice(start, start + self.batch_size)
            rows = range(len(images))[here]
            parts.append(run._batch(images[here], criterion.select(rows), eps[here], seeds[here]))
            if parts[-1].interrupted:
                run = run.stopped()
        return parts

    def one_by_one(
        self, images: Tensor, criterion: AttackCriterion, eps: Tensor, seeds: list[int]
    ) -> list[Result]:
        """Do the same, and return one result for each image; what succeeds already stays."""
        count = len(images)
        met = torch.zeros(count, dtype=torch.bool)
        if criterion.until and self.stops_early:
            met = criterion.is_met(criterion.before)
        results: dict[int, Result] = {}
        interrupted = False
        for run, chosen in ((self.without_random_start(), met), (self, ~met)):
            rows = chosen.nonzero().flatten().tolist()
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
        except OptimizationError as error:  # without a gradient, an attack just does not succeed
            return error.result

    def judge(
        self, images: Tensor, criterion: AttackCriterion, originals: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the predicted classes (B,) of finished images and which of them succeeded."""
        after = predicted_classes(self.model, images, criterion.layer, traces=self.traces)
        if criterion.until:
            return after, criterion.is_met(after)
        reached, before = (
            scores(self.model, criterion.objectives, pictures, precision=self.settings.precision)
            for pictures in (images, originals)
        )
        return after, reached > before

    def distance(self, images: Tensor, originals: Tensor) -> Tensor:
        """Return the norm (B,) of the difference, exact where both are whole levels."""
        delta = images.double() - originals.double()
        if self.settings.eight_bit:
            delta = (delta * LEVELS).round() / LEVELS
        return length(delta, self.settings.norm)


@dataclasses.dataclass
class Attacked:
    """Finished images, one result each (a universal attack: one for all), and their judgement."""

    results: list[Result]
    after: Tensor
    success: Tensor


def attack_with_restarts(
    run: AttackRun, images: Tensor, criterion: AttackCriterion, eps: Tensor, seeds: list[int]
) -> Attacked:
    """Attack, and again the images that the attack failed with; return the best run of each."""
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
            results[0].interrupted = True  # also where no image of this run was kept
            break
        if criterion.until:
            rows = [i for i in range(count) if not success[i]]
        if not rows:
            break
    return Attacked(results, after, success)


def _universal(
    run: AttackRun, images: Tensor, criterion: AttackCriterion, eps: Tensor, seeds: list[int]
) -> Attacked:
    """Return the run whose one difference succeeds with most images; of equals, scores higher."""
    best: tuple[tuple[int, float], Attacked] | None = None
    for restart in range(run.settings.restarts):
        shifted = [seed + restart * SEED_STRIDE for seed in seeds]
        (result,) = run.in_batches(images, criterion, eps, shifted)
        result.seeds = list(seeds)
        attacked = Attacked([result], *_judged(run, [result], criterion, images))
        worth = int(attacked.success.sum()), float(result.scores.mean())
        if best is None or worth > best[0]:
            best = worth, attacked
        if result.interrupted or (criterion.until and attacked.success.all()):
            break
    assert best is not None
    best[1].results[0].interrupted |= result.interrupted
    return best[1]


def _judged(
    run: AttackRun, results: list[Result], criterion: AttackCriterion, originals: Tensor
) -> tuple[Tensor, Tensor]:
    """Judge finished images; Ctrl-C ends the attack, but loses none of them."""
    finished = torch.cat([result.images for result in results])
    try:
        return run.judge(finished, criterion, originals)
    except KeyboardInterrupt:
        results[0].interrupted = True
        return run.judge(finished, criterion, originals)
