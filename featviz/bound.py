"""An objective bound to a network: the scores of images and their gradients."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.gradients import redirected_relu
from featviz.layers import INPUT
from featviz.model import Model
from featviz.objectives.base import Objective
from featviz.objectives.scene import Scene, Score, Target
from featviz.trace import Traced, trace
from featviz.types import Tensor

#: Samples that a CPU takes at a time where that leaves every bit as it is: enough to keep its
#: cores busy, and still small enough for their caches.
WIDE = 4


@dataclasses.dataclass
class Traces:
    """Traced networks, for several runs of the same model in the same precision.

    ``made`` has them by the shape that they take and the layers that they give; ``alone`` notes
    that samples which went through together once differed from those that went alone.
    """

    made: dict[tuple[tuple[int, ...], tuple[str, ...]], Traced | None] = dataclasses.field(
        default_factory=dict
    )
    alone: bool = False


@dataclasses.dataclass(frozen=True)
class Part:
    """Some samples of the batch: which, the layers that they read, and their scores.

    Samples that go through the network together are still scored one by one, where they would
    be alone: a mean over a batch adds in another order.
    """

    here: slice
    needs: tuple[str, ...]
    scores: tuple[Score, ...]
    checks: tuple[Score, ...] = ()

    def __len__(self) -> int:
        return int(self.here.stop - self.here.start)

    def score(self, scene: Scene) -> Tensor:
        """Return the value of each sample, (B,)."""
        return _each(self.scores, scene)

    def check(self, scene: Scene) -> Tensor:
        """Return how far each sample is beyond what ends its run, (B,); without one, -inf."""
        if not self.checks:
            return scene.images.new_full((len(self),), -torch.inf)
        return _each(self.checks, scene).detach()


def _each(scores: tuple[Score, ...], scene: Scene) -> Tensor:
    if len(scores) == 1:
        return scores[0](scene)
    return torch.cat([score(sample) for score, sample in zip(scores, scene.samples, strict=True)])


class Bound:
    """Scores and gradients of a batch, ``micro`` samples at a time.

    ``traced`` makes the network flat (:mod:`featviz.trace`), ``compiled`` compiles that; ``traces``
    holds what earlier runs traced and gets what this one does. ``until`` is checked in the same
    pass, without a gradient.
    """

    #: What redirects the gradients of ReLUs in this step.
    opened: redirected_relu | None = None

    def __init__(
        self,
        model: Model,
        objective: Objective,
        size: tuple[int, ...],
        *,
        channels: int,
        batch: int,
        micro: int | None = None,
        traced: bool = False,
        compiled: bool = False,
        until: Objective | None = None,
        traces: Traces | None = None,
    ) -> None:
        self.model, self.objective, self.table = model, objective, model.layers(size)
        self.until = until
        self.size, self.channels, self.batch = size, channels, batch
        self.traced, self.compiled = traced or compiled, compiled
        goals = [objective] if until is None else [objective, until]
        for goal in goals:
            goal.bind(Target(model, size, batch, channels))  # what is wrong is said of the whole
        relational = any(goal.relational for goal in goals)
        single = not relational and model.device.type == "cpu"
        self.widen = single and micro is None and self.traced and batch >= WIDE
        micro = batch if relational else micro or (1 if single else batch)
        self.parts = [
            self._part(start, min(start + micro, batch)) for start in range(0, batch, micro)
        ]
        self.narrow = self.parts  # as they were before some were put together
        self.single = micro == 1
        self._traces = Traces() if traces is None else traces

    def _part(self, start: int, stop: int) -> Part:
        here = slice(start, stop)
        target = Target(self.model, self.size, stop - start, self.channels)
        goals = [g.sliced(here) for g in (self.objective, self.until) if g is not None]
        needs = sorted({name for goal in goals for name in goal.needs(target)})
        score, *checks = [goal.bind(target) for goal in goals]
        return Part(here, tuple(needs), (score,), tuple(checks))

    def climb(
        self,
        images: Tensor,
        seen: Tensor,
        progress: Tensor,
        scale: float,
        awake: Sequence[bool] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return scores, scaled gradients by images and seen, what was redirected, the checks.

        ``images`` (B, C, *size) are the clean ones, ``seen`` what the network gets of them. Parts
        without a sample that is ``awake`` are left out: their gradients are zero and their scores
        undefined.
        """
        scores = images.new_zeros(len(images))
        checks = torch.full_like(scores, -torch.inf)
        by_images, by_seen = torch.zeros_like(images), torch.zeros_like(seen)
        redirected = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        found = scores, by_images, by_seen, redirected, checks

        def run(parts: list[Part]) -> None:
            for part in parts:
                answers = self._climb(part, images[part.here], seen[part.here], progress, scale)
                for whole, answer in zip(found, answers, strict=True):
                    if answer is not None:
                        whole[part.here] = answer

        run(self.parts if awake is None else self._awake(awake))
        if self.widen and awake is None and not self._traces.alone:
            self.widen = False
            alone = [answer.clone() for answer in found]
            narrow, self.parts = self.parts, self._wide()
            run(self.parts)
            parts = []
            for part in self.parts:
                pairs = [(a[part.here], b[part.here]) for a, b in zip(alone, found, strict=True)]
                if all(torch.equal(a, b) for a, b in pairs):
                    parts.append(part)
                else:
                    parts += narrow[part.here]
            self.parts = parts
            self._traces.alone = parts == narrow
            return alone[0], alone[1], alone[2], alone[3], alone[4]
        return found

    def _awake(self, awake: Sequence[bool]) -> list[Part]:
        """Return the parts that some samples need; a group that thins out is taken apart."""
        parts: list[Part] = []
        for part in self.parts:
            wanted = awake[part.here]
            if self.single and not all(wanted):
                pairs = zip(self.narrow[part.here], wanted, strict=True)
                parts += [alone for alone, on in pairs if on]
            elif any(wanted):
                parts.append(part)
        return parts

    def _wide(self) -> list[Part]:
        """Put samples that stand side by side and read the same layers together by fours."""
        parts: list[Part] = []
        start = 0
        while start < self.batch:
            group = self.parts[start : start + WIDE]
            if len(group) == WIDE and len({part.needs for part in group}) == 1:
                scores = tuple(score for part in group for score in part.scores)
                checks = tuple(check for part in group for check in part.checks)
                group = [Part(slice(start, start + WIDE), group[0].needs, scores, checks)]
            parts += group
            start += sum(map(len, group))
        return parts

    def _climb(
        self, part: Part, images: Tensor, seen: Tensor, progress: Tensor, scale: float
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor]:
        clean, shown = images.detach().requires_grad_(), seen.detach().requires_grad_()
        if self.opened is not None:
            self.opened.batch = len(part)
        values, checks = self._scores(part, clean, shown, progress)
        one = two = None
        if values.requires_grad:
            total = values.sum() * scale
            one, two = torch.autograd.grad(total, [clean, shown], allow_unused=True)
        if one is None and two is None:
            text = self.objective.sliced(part.here)
            raise FeatvizError(f"objective {text} does not depend on the image")
        acted = self.opened.take(len(part)) if self.opened is not None else None
        return values.detach(), one, two, acted, checks

    def _scores(
        self, part: Part, images: Tensor, seen: Tensor, progress: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        found = self._activations(seen, part.needs)
        with torch.autocast(seen.device.type, enabled=False):
            scene = Scene(images, {name: a.float() for name, a in found.items()}, progress)
            return part.score(scene), part.check(scene)

    def _activations(self, seen: Tensor, needs: tuple[str, ...]) -> dict[str, Tensor]:
        def run(images: Tensor) -> list[Tensor]:
            found = self.model.capture(images, needs, self.table)
            return [found[name] for name in needs]

        if self.traced and set(needs) - {INPUT}:
            key = tuple(seen.shape), needs
            if key not in self._traces.made:
                self._traces.made[key] = trace(run, seen, compiled=self.compiled)
            made = self._traces.made[key]
            if made is not None:
                made.switch.opened = self.opened
                return dict(zip(needs, made(seen), strict=True))
        with self.opened or contextlib.nullcontext():
            return self.model.capture(seen, needs, self.table)

    def values(self, images: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and checks of finished pictures, which the network sees as ``seen``."""
        rows = [self._scores(p, images[p.here], seen[p.here], 1.0) for p in self.parts]
        scores, checks = zip(*rows, strict=True)
        return torch.cat(scores), torch.cat(checks)
