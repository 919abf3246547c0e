"""Scores of a batch and their gradients by the images: what the loop asks for at every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch

from featviz.errors import FeatvizError
from featviz.networks import devices
from featviz.networks.gradients import redirected_relu
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.objectives.scene import Scene, Score, Target
from featviz.optim.batching import is_out_of_memory, out_of_memory, warn_smaller
from featviz.optim.forward import ForwardPass
from featviz.optim.tracing import TraceCache
from featviz.types import Precision, Tensor

T = TypeVar("T")

#: Samples that a CPU takes at a time where that leaves every bit as it is: enough to keep its
#: cores busy, and still small enough for their caches.
WIDE = 4


class Gradients(NamedTuple):
    """Scores and gradients of a batch. Gradients are scaled by the precision's factor.

    ``by_images`` and ``by_seen`` (B, C, *size) are by the clean images and by what the network sees
    of them, None where the score does not depend on them; ``redirected`` (B,) says for which
    samples a ReLU was redirected; ``until`` (B,) is above zero for samples that are done.
    """

    scores: Tensor
    by_images: Tensor | None
    by_seen: Tensor | None
    redirected: Tensor
    until: Tensor


@dataclasses.dataclass(frozen=True)
class Part:
    """Samples of the batch that go through the network together, and how each is scored.

    They are still scored one by one, as they would be alone: a mean over a batch adds in another
    order.
    """

    samples: slice
    needs: tuple[str, ...]
    scores: tuple[Score, ...]
    until: tuple[Score, ...] = ()

    def __len__(self) -> int:
        return int(self.samples.stop - self.samples.start)

    def score(self, scene: Scene) -> Tensor:
        """Return the value of each sample, (B,)."""
        return _each(self.scores, scene)

    def check(self, scene: Scene) -> Tensor:
        """Return by how much each sample is past what ends its run, (B,); -inf without such."""
        if not self.until:
            return scene.images.new_full((len(self),), -torch.inf)
        return _each(self.until, scene).detach()


def _each(scores: tuple[Score, ...], scene: Scene) -> Tensor:
    if len(scores) == 1:
        return scores[0](scene)
    return torch.cat([score(sample) for score, sample in zip(scores, scene.samples, strict=True)])


class GradientEvaluator:
    """Scores and gradients of a batch of images of one size, some samples at a time.

    Parameters
    ----------
    objective
        What is differentiated: the sum of its values over the batch.
    until
        An objective that is evaluated in the same pass, without a gradient.
    micro
        Samples that go through the network at a time. By default all on a GPU; on a CPU one, or
        :data:`WIDE` where the first step shows that it makes no difference to the last bit.
    traced, compiled, traces
        As for :class:`featviz.optim.forward.ForwardPass`.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        size: tuple[int, ...],
        *,
        channels: int,
        batch: int,
        micro: int | None = None,
        precision: Precision = "fp32",
        traced: bool = False,
        compiled: bool = False,
        until: Objective | None = None,
        traces: TraceCache | None = None,
    ) -> None:
        self.model, self.objective, self.until = model, objective, until
        self.size, self.channels, self.batch = size, channels, batch
        self.gradient_scale = devices.gradient_scale(precision)
        self.forward = ForwardPass(
            model, size, precision=precision, traced=traced, compiled=compiled, traces=traces
        )
        goals = [objective] if until is None else [objective, until]
        for goal in goals:
            goal.bind(Target(model, size, batch, channels))  # errors name the whole objective
        relational = any(goal.relational for goal in goals)
        single = not relational and model.device.type == "cpu"
        self._widen = single and micro is None and self.forward.traced and batch >= WIDE
        self._divide(batch if relational else micro or (1 if single else batch))

    def redirect(self, rule: redirected_relu | None) -> None:
        """Redirect the gradients of ReLUs from now on, or with None no more."""
        self.forward.redirect = rule

    def _divide(self, micro: int) -> None:
        """Let ``micro`` samples through at a time."""
        starts = range(0, self.batch, micro)
        self._parts = [self._part(start, min(start + micro, self.batch)) for start in starts]
        self._narrow = self._parts  # as they are before some are put together
        self._single = micro == 1

    def _part(self, start: int, stop: int) -> Part:
        here = slice(start, stop)
        target = Target(self.model, self.size, stop - start, self.channels)
        goals = [g.sliced(here) for g in (self.objective, self.until) if g is not None]
        needs = sorted({name for goal in goals for name in goal.needs(target)})
        score, *until = [goal.bind(target) for goal in goals]
        return Part(here, tuple(needs), (score,), tuple(until))

    def gradients(
        self,
        images: Tensor,
        seen: Tensor,
        progress: Tensor,
        active: Sequence[bool] | None = None,
    ) -> Gradients:
        """Return the scores and gradients of clean ``images``, which the network sees as ``seen``.

        Both are (B, C, *size). Parts without a sample that is ``active`` are left out: their
        gradients are zero and their scores undefined.
        """
        if self._widen and self.forward.traces.batchwise is False:  # an earlier run has shown it
            self._widen, self._parts = False, self._wide()

        def run() -> Gradients:
            parts = self._parts if active is None else self._active(active)
            return self._run(parts, images, seen, progress)

        result = self._retried(run)
        if self._widen and active is None and self.forward.traces.batchwise is None:
            self._widen = False
            self._compare_wide(result, images, seen, progress)
        return result

    def _run(
        self, parts: Sequence[Part], images: Tensor, seen: Tensor, progress: Tensor
    ) -> Gradients:
        scores = images.new_zeros(len(images))
        until = torch.full_like(scores, -torch.inf)
        redirected = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        by_images = by_seen = None
        for part in parts:
            here = part.samples
            each = self._differentiate(part, images[here], seen[here], progress)
            scores[here], until[here] = each.scores, each.until
            redirected[here] = each.redirected
            if each.by_images is not None:
                by_images = torch.zeros_like(images) if by_images is None else by_images
                by_images[here] = each.by_images
            if each.by_seen is not None:
                by_seen = torch.zeros_like(seen) if by_seen is None else by_seen
                by_seen[here] = each.by_seen
        return Gradients(scores, by_images, by_seen, redirected, until)

    def _differentiate(
        self, part: Part, images: Tensor, seen: Tensor, progress: Tensor
    ) -> Gradients:
        clean, shown = images.detach().requires_grad_(), seen.detach().requires_grad_()
        redirect = self.forward.redirect
        if redirect is not None:
            redirect.batch = len(part)
        scores, until = self._score(part, clean, shown, progress)
        by_images = by_seen = None
        if scores.requires_grad:
            total = scores.sum() * self.gradient_scale
            by_images, by_seen = torch.autograd.grad(total, [clean, shown], allow_unused=True)
        if by_images is None and by_seen is None:
            text = self.objective.sliced(part.samples)
            raise FeatvizError(f"objective {text} does not depend on the image")
        redirected = None if redirect is None else redirect.take(len(part))
        if redirected is None:
            redirected = torch.zeros(len(part), dtype=torch.bool, device=seen.device)
        return Gradients(scores.detach(), by_images, by_seen, redirected, until)

    def _score(
        self, part: Part, images: Tensor, seen: Tensor, progress: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        scene = self.forward.scene(seen, part.needs, images=images, progress=progress)
        with torch.autocast(seen.device.type, enabled=False):
            return part.score(scene), part.check(scene)

    def values(self, images: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and ``until`` (B,) of finished images, seen by the network as ``seen``."""

        def run() -> list[tuple[Tensor, Tensor]]:
            parts = self._parts
            return [self._score(p, images[p.samples], seen[p.samples], 1.0) for p in parts]

        scores, until = zip(*self._retried(run, quiet=True), strict=True)
        return torch.cat(scores), torch.cat(until)

    def _retried(self, run: Callable[[], T], *, quiet: bool = False) -> T:
        """Call ``run``, with fewer samples at a time where memory does not suffice."""
        while True:
            try:
                return run()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self._halve(quiet)  # outside of the handler, whose traceback holds on to the memory

    def _halve(self, quiet: bool) -> None:
        """Let half as many samples through at a time; raise where it is one already."""
        largest = max(map(len, self._parts))
        if largest == 1 or self.objective.relational:
            raise out_of_memory(largest, self.size, dependent=True)
        self.forward.traces.passes.clear()
        self._divide(largest // 2)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if not quiet:
            warn_smaller(largest, self.size, largest // 2)

    def _active(self, active: Sequence[bool]) -> list[Part]:
        """Return the parts that some samples need; a group that thins out is taken apart."""
        parts: list[Part] = []
        for part in self._parts:
            wanted = active[part.samples]
            if self._single and not all(wanted):
                pairs = zip(self._narrow[part.samples], wanted, strict=True)
                parts += [alone for alone, on in pairs if on]
            elif any(wanted):
                parts.append(part)
        return parts

    def _wide(self) -> list[Part]:
        """Put neighbouring samples that need the same layers together by fours."""
        parts: list[Part] = []
        start = 0
        while start < self.batch:
            group = self._parts[start : start + WIDE]
            if len(group) == WIDE and len({part.needs for part in group}) == 1:
                scores = tuple(score for part in group for score in part.scores)
                until = tuple(check for part in group for check in part.until)
                group = [Part(slice(start, start + WIDE), group[0].needs, scores, until)]
            parts += group
            start += sum(map(len, group))
        return parts

    def _compare_wide(
        self, single: Gradients, images: Tensor, seen: Tensor, progress: Tensor
    ) -> None:
        """Let those go together from now on whose every bit is then the same as alone."""
        narrow, wide = self._parts, self._wide()
        together = self._run(wide, images, seen, progress)
        self._parts = []
        for part in wide:
            pairs = [(a, b) for a, b in zip(single, together, strict=True) if a is not None]
            if all(
                b is not None and torch.equal(a[part.samples], b[part.samples]) for a, b in pairs
            ):
                self._parts.append(part)
            else:
                self._parts += narrow[part.samples]
        self.forward.traces.batchwise = self._parts != wide
