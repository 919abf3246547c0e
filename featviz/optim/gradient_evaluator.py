"""Scores of a batch and their gradients with respect to the images, for each step of the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch

from featviz.errors import FeatvizError
from featviz.networks import devices
from featviz.networks.differentiability import gradient_errors_explained, why_no_gradient
from featviz.networks.gradients import redirected_relu
from featviz.networks.model import Model
from featviz.networks.noise import NetworkNoise
from featviz.objectives.base import Objective
from featviz.objectives.scene import Target
from featviz.optim import prior as priors
from featviz.optim.batching import is_out_of_memory, out_of_memory, warn_smaller
from featviz.optim.forward import ForwardPass
from featviz.optim.parts import WIDE, Part, Parts
from featviz.optim.tracing import TraceCache
from featviz.types import Precision, Tensor

T = TypeVar("T")


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


class GradientEvaluator:
    """Computes scores and gradients of a batch of images of one size, in parts if need be.

    Parameters
    ----------
    objective
        The objective to differentiate, summed over the batch.
    until
        A stopping criterion, evaluated in the same pass without gradients.
    prior
        Weight of the prior on activations (:mod:`featviz.optim.prior`), whose gradient is added;
        the scores are those of the objective alone.
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
        prior: float = 0.0,
    ) -> None:
        self.model, self.objective, self.size = model, objective, size
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
        weights = priors.weights(prior, objective, batch)
        self.parts = Parts(objectives, Target(model, size, batch, channels), weights)
        self.parts.split(batch if relational else micro or (1 if single else batch))

    def redirect(self, rule: redirected_relu | None) -> None:
        """Redirect the gradients of ReLUs from now on; None stops that."""
        self.forward.redirect = rule

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
        batchwise = self.forward.traces.batchwise.get(self.size)
        if self._try_merging and batchwise is False:  # as an earlier run found
            self._try_merging, self.parts.current = False, self.parts.merged()

        def run() -> Gradients:
            parts = self.parts.current if active is None else self.parts.active(active)
            return self._run(parts, images, seen, progress)

        result = self._retry_smaller(run)
        if self._try_merging and active is None and batchwise is None:
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
        scores, until, total = self._score(part, clean, inputs, progress)
        by_images = by_seen = None
        if scores.requires_grad:
            total = total * self.gradient_scale
            with gradient_errors_explained(self.model.net):
                by_images, by_seen = torch.autograd.grad(total, [clean, inputs], allow_unused=True)
        if by_images is None and by_seen is None:
            text = self.objective.sliced(part.samples)
            raise FeatvizError(
                f"objective {text} does not depend on the image, or the network hides that: "
                f"{why_no_gradient(self.model.net)}"
            )
        redirected = None if redirect is None else redirect.take(len(part))
        if redirected is None:
            redirected = torch.zeros(len(part), dtype=torch.bool, device=seen.device)
        return Gradients(scores.detach(), by_images, by_seen, redirected, until)

    def _score(
        self, part: Part, images: Tensor, seen: Tensor, progress: Tensor | float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores and ``until`` (B,), and the sum of the scores and the prior."""
        scene = self.forward.scene(seen, part.needs, images=images, progress=progress)
        with torch.autocast(seen.device.type, enabled=False):
            scores = part.score(scene)
            total = scores.sum()
            if part.prior is not None:
                total = total + part.prior(scene).sum()
            return scores, part.check(scene), total

    def values(self, images: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and ``until`` (B,) of finished images with the network input ``seen``."""

        def run() -> list[tuple[Tensor, Tensor]]:
            parts = self.parts.current
            return [self._score(p, images[p.samples], seen[p.samples], 1.0)[:2] for p in parts]

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
        largest = max(map(len, self.parts.current))
        if largest == 1 or self.objective.relational:
            raise out_of_memory(largest, self.size, dependent=True)
        self.forward.traces.passes.clear()
        self.parts.split(largest // 2)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if not quiet:
            warn_smaller(largest, self.size, largest // 2)

    def _compare_merged(
        self, single: Gradients, images: Tensor, seen: Tensor, progress: Tensor
    ) -> None:
        """Keep the merged parts whose results are bitwise identical to those of single samples."""
        narrow, wide = self.parts.current, self.parts.merged()
        merged = self._run(wide, images, seen, progress)
        kept: list[Part] = []
        for part in wide:
            pairs = [(a, b) for a, b in zip(single, merged, strict=True) if a is not None]
            if all(
                b is not None and torch.equal(a[part.samples], b[part.samples]) for a, b in pairs
            ):
                kept.append(part)
            else:
                kept += narrow[part.samples]
        self.parts.current = kept
        self.forward.traces.batchwise[self.size] = kept != wide
