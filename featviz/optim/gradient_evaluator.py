"""Scores of a batch and their gradients with respect to the images, for each step of the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch

from featviz.errors import FeatvizError
from featviz.networks import devices
from featviz.networks.gradients import redirected_relu
from featviz.networks.model import Model
from featviz.networks.noise import NetworkNoise
from featviz.objectives.base import Objective
from featviz.objectives.scene import Scene, Score, Target
from featviz.optim.batching import is_out_of_memory, out_of_memory, warn_smaller
from featviz.optim.forward import ForwardPass
from featviz.optim.tracing import TraceCache
from featviz.types import Precision, Tensor

T = TypeVar("T")

#: Samples per forward pass on a CPU if that is bitwise identical to one by one: enough to keep the
#: cores busy, and few enough for their caches.
WIDE = 4


class Gradients(NamedTuple):
    """Scores and gradients of a batch. Gradients are scaled by the precision's factor.

    ``by_images`` and ``by_seen`` (B, C, *size) are with respect to the clean images and to the
    network's input, None if the score does not depend on them; ``redirected`` (B,) flags samples
    for which a ReLU was redirected; ``until`` (B,) is above zero for samples that are done.
    """

    scores: Tensor
    by_images: Tensor | None
    by_seen: Tensor | None
    redirected: Tensor
    until: Tensor


@dataclasses.dataclass(frozen=True)
class Part:
    """Samples of the batch that go through the network together, and their scores.

    Each is still scored by itself, since reducing over a batch would add in another order.
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
        """Return ``until`` (B,), which is above zero for samples that are done; -inf without it."""
        if not self.until:
            return scene.images.new_full((len(self),), -torch.inf)
        return _each(self.until, scene).detach()


def _each(scores: tuple[Score, ...], scene: Scene) -> Tensor:
    if len(scores) == 1:
        return scores[0](scene)
    return torch.cat([score(sample) for score, sample in zip(scores, scene.samples, strict=True)])


class GradientEvaluator:
    """Computes scores and gradients of a batch of images of one size, in parts if need be.

    Parameters
    ----------
    objective
        The objective to differentiate, summed over the batch.
    until
        A stopping criterion, evaluated in the same pass without gradients.
    micro
        Samples per forward pass. By default all on a GPU; on a CPU one, or :data:`WIDE` if the
        first step shows that the results are bitwise identical.
    traced, compiled, traces, noise
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
        noise: NetworkNoise | None = None,
    ) -> None:
        self.model, self.objective, self.until = model, objective, until
        self.size, self.channels, self.batch = size, channels, batch
        self.gradient_scale = devices.gradient_scale(precision)
        self.forward = ForwardPass(
            model,
            size,
            precision=precision,
            traced=traced,
            compiled=compiled,
            traces=traces,
            noise=noise,
        )
        objectives = [objective] if until is None else [objective, until]
        for item in objectives:
            item.bind(Target(model, size, batch, channels))  # errors name the whole objective
        relational = any(item.relational for item in objectives)
        single = not relational and model.device.type == "cpu"
        self._try_merging = single and micro is None and self.forward.traced and batch >= WIDE
        self._split(batch if relational else micro or (1 if single else batch))

    def redirect(self, rule: redirected_relu | None) -> None:
        """Redirect the gradients of ReLUs from now on; None stops that."""
        self.forward.redirect = rule

    def _split(self, micro: int) -> None:
        """Split the batch into parts of ``micro`` samples."""
        starts = range(0, self.batch, micro)
        self._parts = [self._part(start, min(start + micro, self.batch)) for start in starts]
        self._single_parts = self._parts  # the parts before any are merged
        self._single = micro == 1

    def _part(self, start: int, stop: int) -> Part:
        rows = slice(start, stop)
        target = Target(self.model, self.size, stop - start, self.channels)
        objectives = [
            item.sliced(rows) for item in (self.objective, self.until) if item is not None
        ]
        needs = sorted({name for item in objectives for name in item.needs(target)})
        score, *until = [item.bind(target) for item in objectives]
        return Part(rows, tuple(needs), (score,), tuple(until))

    def gradients(
        self,
        images: Tensor,
        seen: Tensor,
        progress: Tensor,
        active: Sequence[bool] | None = None,
    ) -> Gradients:
        """Return the scores and gradients of clean ``images`` with the network input ``seen``.

        Both are (B, C, *size). Parts without ``active`` samples are skipped: their gradients are
        zero and their scores undefined.
        """
        if self._try_merging and self.forward.traces.batchwise is False:  # as an earlier run found
            self._try_merging, self._parts = False, self._merged_parts()

        def run() -> Gradients:
            parts = self._parts if active is None else self._active(active)
            return self._run(parts, images, seen, progress)

        result = self._retry_smaller(run)
        if self._try_merging and active is None and self.forward.traces.batchwise is None:
            self._try_merging = False
            self._compare_merged(result, images, seen, progress)
        return result

    def _run(
        self, parts: Sequence[Part], images: Tensor, seen: Tensor, progress: Tensor
    ) -> Gradients:
        scores = images.new_zeros(len(images))
        until = torch.full_like(scores, -torch.inf)
        redirected = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        by_images = by_seen = None
        for part in parts:
            rows = part.samples
            result = self._differentiate(part, images[rows], seen[rows], progress)
            scores[rows], until[rows] = result.scores, result.until
            redirected[rows] = result.redirected
            if result.by_images is not None:
                by_images = torch.zeros_like(images) if by_images is None else by_images
                by_images[rows] = result.by_images
            if result.by_seen is not None:
                by_seen = torch.zeros_like(seen) if by_seen is None else by_seen
                by_seen[rows] = result.by_seen
        return Gradients(scores, by_images, by_seen, redirected, until)

    def _differentiate(
        self, part: Part, images: Tensor, seen: Tensor, progress: Tensor
    ) -> Gradients:
        clean, inputs = images.detach().requires_grad_(), seen.detach().requires_grad_()
        redirect = self.forward.redirect
        if redirect is not None:
            redirect.batch = len(part)
        scores, until = self._score(part, clean, inputs, progress)
        by_images = by_seen = None
        if scores.requires_grad:
            total = scores.sum() * self.gradient_scale
            by_images, by_seen = torch.autograd.grad(total, [clean, inputs], allow_unused=True)
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
        """Return scores and ``until`` (B,) of finished images with the network input ``seen``."""

        def run() -> list[tuple[Tensor, Tensor]]:
            parts = self._parts
            return [self._score(p, images[p.samples], seen[p.samples], 1.0) for p in parts]

        scores, until = zip(*self._retry_smaller(run, quiet=True), strict=True)
        return torch.cat(scores), torch.cat(until)

    def _retry_smaller(self, run: Callable[[], T], *, quiet: bool = False) -> T:
        """Call ``run``, retrying with smaller parts when memory runs out."""
        while True:
            try:
                return run()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self._halve(quiet)  # outside the handler, whose traceback keeps the memory alive

    def _halve(self, quiet: bool) -> None:
        """Halve the number of samples per forward pass; raise if that is impossible."""
        largest = max(map(len, self._parts))
        if largest == 1 or self.objective.relational:
            raise out_of_memory(largest, self.size, dependent=True)
        self.forward.traces.passes.clear()
        self._split(largest // 2)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if not quiet:
            warn_smaller(largest, self.size, largest // 2)

    def _active(self, active: Sequence[bool]) -> list[Part]:
        """Return the parts with active samples, splitting merged ones that are partly inactive."""
        parts: list[Part] = []
        for part in self._parts:
            flags = active[part.samples]
            if self._single and not all(flags):
                singles = zip(self._single_parts[part.samples], flags, strict=True)
                parts += [single for single, is_active in singles if is_active]
            elif any(flags):
                parts.append(part)
        return parts

    def _merged_parts(self) -> list[Part]:
        """Merge neighbouring samples that need the same layers into parts of :data:`WIDE`."""
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

    def _compare_merged(
        self, single: Gradients, images: Tensor, seen: Tensor, progress: Tensor
    ) -> None:
        """Keep the merged parts whose results are bitwise identical to those of single samples."""
        narrow, wide = self._parts, self._merged_parts()
        merged = self._run(wide, images, seen, progress)
        self._parts = []
        for part in wide:
            pairs = [(a, b) for a, b in zip(single, merged, strict=True) if a is not None]
            if all(
                b is not None and torch.equal(a[part.samples], b[part.samples]) for a, b in pairs
            ):
                self._parts.append(part)
            else:
                self._parts += narrow[part.samples]
        self.forward.traces.batchwise = self._parts != wide
