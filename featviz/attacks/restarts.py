"""How often an attack is run: in batches, and again where it failed."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from featviz.attacks import criterion as aims
from featviz.attacks.algorithms import METHODS
from featviz.attacks.criterion import Aim
from featviz.errors import OptimizationError
from featviz.networks.model import Model
from featviz.optim.callbacks import Callback, Run
from featviz.optim.loop import optimize
from featviz.optim.result import Result
from featviz.param import Bounded
from featviz.param.balls import LEVELS, length
from featviz.types import Tensor

#: Restart r of a picture draws as the seed ``seed + r * APART`` would.
APART = 2**32


class _Stop(Callback):
    def on_start(self, run: Run) -> None:
        raise KeyboardInterrupt


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """An attack with all its settings; :meth:`run` is the part that is repeated."""

    model: Model
    norm: str
    method: str
    steps: int
    step_size: float | None
    random_start: bool
    eight_bit: bool
    universal: bool
    until: bool
    batch_size: int
    loop: dict[str, Any]

    def run(self, images: Tensor, aim: Aim, eps: Tensor, seeds: list[int]) -> list[Result]:
        """Attack ``images`` (B, C, *size) with the radii ``eps`` (B,), in batches.

        After Ctrl-C the others stay as they are.
        """
        plan, parts = self, []
        for start in range(0, len(images), self.batch_size):
            here = slice(start, start + self.batch_size)
            rows = range(len(images))[here]
            parts.append(plan._batch(images[here], aim.at(rows), eps[here], seeds[here]))
            if parts[-1].interrupted:
                plan = plan.over
        return parts

    @property
    def over(self) -> Plan:
        """The plan that ends before its first step."""
        return dataclasses.replace(
            self, random_start=False, loop={**self.loop, "callbacks": [_Stop()]}
        )

    def singles(self, images: Tensor, aim: Aim, eps: Tensor, seeds: list[int]) -> list[Result]:
        """Do what :meth:`run` does, as one result a picture; what succeeds already stays."""
        count = len(images)
        there = aim.reached(aim.before) if aim.until and self.until else torch.zeros(count) > 0
        found: dict[int, Result] = {}
        interrupted = False
        for plan, chosen in (
            (dataclasses.replace(self, random_start=False), there),
            (self, ~there),
        ):
            rows = chosen.nonzero().flatten().tolist()
            if rows:
                now = plan.over if interrupted else plan
                parts = now.run(images[rows], aim.at(rows), eps[rows], [seeds[i] for i in rows])
                interrupted |= parts[-1].interrupted
                results = [part[k] for part in parts for k in range(len(part))]
                found |= dict(zip(rows, results, strict=True))
        return [found[i] for i in range(count)]

    def _batch(self, images: Tensor, aim: Aim, eps: Tensor, seeds: list[int]) -> Result:
        method = METHODS[self.method]
        radii = eps[:1] if self.universal else eps
        param = Bounded(
            images=images,
            eps=tuple(radii.tolist()),
            norm=self.norm,
            start="uniform" if self.random_start and method.random else "zero",
            eight_bit=self.eight_bit,
            shared=self.universal,
        )
        rate = radii * method.rate(self.steps)
        if self.step_size is not None:
            rate = torch.full_like(rate, self.step_size)
        try:
            return optimize(
                self.model,
                aim.objective,
                param=param,
                steps=self.steps,
                seeds=seeds,
                optimizer=method.rule(param, rate, self.steps),
                until=aim.success if self.until else None,
                keep=method.keep,
                redirect=0,
                **self.loop,
            )
        except OptimizationError as error:  # without a gradient, an attack just does not succeed
            return error.result

    def judge(self, images: Tensor, aim: Aim, originals: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted classes of finished pictures and which of them succeeded."""
        after = aims.predict(
            self.model, images, aim.layer, self.batch_size, self.loop.get("traces")
        )
        if aim.until:
            return after, aim.reached(after)
        scores = [self._scores(aim, pictures) for pictures in (images, originals)]
        return after, scores[0] > scores[1]

    def _scores(self, aim: Aim, images: Tensor) -> Tensor:
        found = []
        with torch.no_grad():  # one by one, as any objective may be that of a single picture
            for objective, image in zip(aim.objectives, images, strict=True):
                found.append(objective(self.model, image[None].to(self.model.device)).cpu())
        return torch.cat(found)


@dataclasses.dataclass
class Found:
    """Finished pictures, one result each (a universal attack: one for all), and their judgement."""

    results: list[Result]
    after: Tensor
    success: Tensor


def restarted(
    plan: Plan, images: Tensor, aim: Aim, eps: Tensor, seeds: list[int], restarts: int = 1
) -> Found:
    """Attack, and again those that the attack failed with; what is returned is the best run."""
    count = len(images)
    if plan.universal:
        return _universal(plan, images, aim, eps, seeds, restarts)
    results: list[Result] = []
    after, success = torch.full((count,), -1), torch.zeros(count, dtype=torch.bool)
    rows = list(range(count))
    for restart in range(restarts):
        shifted = [seeds[i] + restart * APART for i in rows]
        singles = plan.singles(images[rows], aim.at(rows), eps[rows], shifted)
        classes, fooled = _judged(plan, singles, aim.at(rows), images[rows])
        if not restart:
            results, after, success = singles, classes, fooled
        else:
            for k, i in enumerate(rows):
                if fooled[k] > success[i] or bool(singles[k].scores > results[i].scores):
                    singles[k].seeds = [seeds[i]]
                    results[i], after[i], success[i] = singles[k], classes[k], fooled[k]
        if any(single.interrupted for single in singles):
            results[0].interrupted = True  # also where no picture of this run was kept
            break
        if aim.until:
            rows = [i for i in range(count) if not success[i]]
        if not rows:
            break
    return Found(results, after, success)


def _universal(
    plan: Plan, images: Tensor, aim: Aim, eps: Tensor, seeds: list[int], restarts: int
) -> Found:
    """Return the run whose one difference succeeds with most pictures; of equals, scores higher."""
    best: tuple[tuple[int, float], Found] | None = None
    for restart in range(restarts):
        (result,) = plan.run(images, aim, eps, [seed + restart * APART for seed in seeds])
        result.seeds = list(seeds)
        found = Found([result], *_judged(plan, [result], aim, images))
        worth = int(found.success.sum()), float(result.scores.mean())
        if best is None or worth > best[0]:
            best = worth, found
        if result.interrupted or (aim.until and found.success.all()):
            break
    assert best is not None
    best[1].results[0].interrupted |= result.interrupted
    return best[1]


def _judged(
    plan: Plan, results: list[Result], aim: Aim, originals: Tensor
) -> tuple[Tensor, Tensor]:
    """Judge finished pictures; Ctrl-C ends the attack, but loses none of them."""
    finished = torch.cat([result.images for result in results])
    try:
        return plan.judge(finished, aim, originals)
    except KeyboardInterrupt:
        results[0].interrupted = True
        return plan.judge(finished, aim, originals)


def distance(images: Tensor, originals: Tensor, plan: Plan) -> Tensor:
    """Return the norm (B,) of the difference, exact where both are whole levels."""
    delta = images.double() - originals.double()
    if plan.eight_bit:
        delta = (delta * LEVELS).round() / LEVELS
    return length(delta, plan.norm)
