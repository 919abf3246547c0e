"""An objective bound to a network: the scores of images and their gradients."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import torch

from featviz.errors import FeatvizError, FeatvizWarning
from featviz.networks.gradients import redirected_relu
from featviz.networks.layers import INPUT, LayerTable
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.objectives.scene import Scene, Score, Target
from featviz.optim.tracing import Traced, trace
from featviz.types import Tensor

T = TypeVar("T")

#: Samples that a CPU takes at a time where that leaves every bit as it is: enough to keep its
#: cores busy, and still small enough for their caches.
WIDE = 4


@dataclasses.dataclass
class Traces:
    """Traced networks, for several runs of the same model in the same precision.

    ``made`` has them by the shape that they take and the layers that they give; ``alone`` notes
    whether samples that went through together differed from those that went alone, None as long
    as that is not known.
    """

    made: dict[tuple[tuple[int, ...], tuple[str, ...]], Traced | None] = dataclasses.field(
        default_factory=dict
    )
    alone: bool | None = None

    def find(
        self,
        model: Model,
        seen: Tensor,
        needs: tuple[str, ...],
        table: LayerTable,
        *,
        compiled: bool = False,
    ) -> Traced | None:
        """Return the traced pass for images like ``seen``, made now if there is none yet."""

        def run(images: Tensor) -> list[Tensor]:
            found = model.capture(images, needs, table)
            return [found[name] for name in needs]

        key = tuple(seen.shape), needs
        if key not in self.made:
            # A wide pass is compared with the narrow one, to the bit, when it has been run.
            alone = (1, *seen.shape[1:]), needs
            known = alone in self.made
            self.made[key] = (
                None
                if known and self.made[alone] is None
                else trace(run, seen, compiled=compiled, checked=not known)
            )
        return self.made[key]


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


#: Scores (B,), their gradients by the clean images and by what the network sees, which samples had
#: a ReLU redirected (B,), and how far each is beyond what ends its run (B,).
Climb: TypeAlias = tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor]


class Bound:
    """Scores and gradients of a batch, ``micro`` samples at a time.

    ``traced`` flattens the network (:mod:`featviz.optim.tracing`), ``compiled`` compiles that;
    ``traces`` holds what earlier runs traced and gets what this one does. ``until`` is checked in
    the same pass, without a gradient.
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
        self._cut(micro)
        self._traces = Traces() if traces is None else traces

    def _cut(self, micro: int) -> None:
        """Let ``micro`` samples at a time through."""
        starts = range(0, self.batch, micro)
        self.parts = [self._part(start, min(start + micro, self.batch)) for start in starts]
        self.narrow = self.parts  # as they are before some are put together
        self.single = micro == 1

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
    ) -> Climb:
        """Return scores, scaled gradients by images and seen, what was redirected, the checks.

        ``images`` (B, C, *size) are the clean ones, ``seen`` what the network gets of them. A
        gradient that no sample has is None. Parts without a sample that is ``awake`` are left
        out: their gradients are zero and their scores undefined.
        """
        scores = images.new_zeros(len(images))
        checks = torch.full_like(scores, -torch.inf)
        redirected = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        found: list[Any] = [scores, None, None, redirected, checks]

        def run(parts: list[Part]) -> None:
            for part in parts:
                answers = self._climb(part, images[part.here], seen[part.here], progress, scale)
                for place, answer in enumerate(answers):
                    if answer is not None:
                        if found[place] is None:
                            found[place] = torch.zeros_like(images if place == 1 else seen)
                        found[place][part.here] = answer

        if self.widen and self._traces.alone is False:  # an earlier run has shown it
            self.widen, self.parts = False, self._wide()
        self._fitting(lambda: run(self.parts if awake is None else self._awake(awake)))
        if self.widen and awake is None and self._traces.alone is None:
            self.widen = False
            alone = [None if answer is None else answer.clone() for answer in found]
            narrow, self.parts = self.parts, self._wide()
            run(self.parts)
            parts, wide = [], self.parts
            for part in wide:
                both = [(a, b) for a, b in zip(alone, found, strict=True) if a is not None]
                if all(torch.equal(a[part.here], b[part.here]) for a, b in both):
                    parts.append(part)
                else:
                    parts += narrow[part.here]
            self.parts = parts
            self._traces.alone = parts != wide
            found = alone
        return found[0], found[1], found[2], found[3], found[4]

    def _fitting(self, call: Callable[[], T], *, quiet: bool = False) -> T:
        """Return what ``call`` does, with fewer samples at a time where memory does not do."""
        while True:
            try:
                return call()
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
            self._split(quiet)  # outside of the handler, whose traceback holds on to the memory

    def _split(self, quiet: bool) -> None:
        """Let half as many samples through at a time; raise where it is one already."""
        most = max(map(len, self.parts))
        size = "x".join(map(str, self.size))
        if most == 1 or self.objective.relational:
            several = f"{most} pictures that depend on one another" if most > 1 else "one picture"
            raise FeatvizError(
                f"out of memory with {several} of {size}: take a smaller size, an earlier layer, "
                "or precision bf16"
            )
        micro = most // 2
        self._traces.made.clear()
        self._cut(micro)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if not quiet:
            warnings.warn(
                f"out of memory with {most} pictures of {size} at a time: {micro} now",
                FeatvizWarning,
                stacklevel=2,
            )

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
        if self.traced and set(needs) - {INPUT}:
            made = self._traces.find(self.model, seen, needs, self.table, compiled=self.compiled)
            if made is not None:
                made.switch.opened = self.opened
                return dict(zip(needs, made(seen), strict=True))
        with self.opened or contextlib.nullcontext():
            return self.model.capture(seen, needs, self.table)

    def values(self, images: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and checks of finished pictures, which the network sees as ``seen``."""

        def rows() -> list[tuple[Tensor, Tensor]]:
            return [self._scores(p, images[p.here], seen[p.here], 1.0) for p in self.parts]

        scores, checks = zip(*self._fitting(rows, quiet=True), strict=True)
        return torch.cat(scores), torch.cat(checks)


def _out_of_memory(error: RuntimeError) -> bool:
    # What the allocator of the CPU raises has no type of its own.
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
