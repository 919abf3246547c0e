"""The parts of one optimization run, prepared and checked before the first step."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from featviz._version import __version__
from featviz.errors import FeatvizError
from featviz.networks.differentiability import quantized_layers
from featviz.networks.gradients import redirected_relu
from featviz.networks.model import Model
from featviz.objectives.base import Objective
from featviz.objectives.group import PerSample, texts_of
from featviz.optim.best_states import BestStates
from featviz.optim.callbacks import Run, Step
from featviz.optim.checkpoint import Checkpoint
from featviz.optim.diagnostics import GradientDiagnostics
from featviz.optim.focus import Focus
from featviz.optim.gradient_evaluator import GradientEvaluator
from featviz.optim.resolved import Plan
from featviz.optim.result import Result
from featviz.optim.stages import Stage, gains, half, make_stage
from featviz.optim.tiling import TiledEvaluator
from featviz.optim.tracing import TraceCache
from featviz.optim.views import VIEWS, Views, seen_in_views
from featviz.transforms import Backdrop, Background, output_size
from featviz.types import Tensor


class Ascent:
    """The parts and the state of one run of :mod:`featviz.optim.loop`.

    Attributes
    ----------
    state, leaves
        The free parameters, as a dictionary by name and as a list.
    coarse_steps
        The number of steps, the first ones, in which the network sees images of half the size.
    progress, history
        (steps,): values from 0 to 1; (steps, B): the scores so far.
    heat
        (B, *size): the accumulated absolute gradient; None if it is not requested.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        plan: Plan,
        seeds: Sequence[int],
        *,
        until: Objective | None,
        best: bool,
        samples: int,
        tile: int | None,
        micro: int | None,
        importance: bool,
        traces: TraceCache | None,
        resume: Checkpoint | None,
    ) -> None:
        self.model, self.objective, self.plan, self.seeds = model, objective, plan, list(seeds)
        self.param, self.redirect, self.samples = plan.param, plan.redirect, samples
        device, batch, size = model.device, len(seeds), plan.param.shape
        transforms = plan.transforms
        has_background = any(isinstance(t, (Background, Backdrop)) for t in transforms)
        if has_background and not self.param.transparent:
            raise FeatvizError("background is for transparent images: use param alpha, or omit it")
        if self.param.transparent and not has_background:
            backdrop = self.param.backdrop
            transforms = (Background() if backdrop is None else Backdrop(backdrop), *transforms)

        # Finished images get an evaluator of their own: padding changes the network's input size.
        evaluator_type = (
            GradientEvaluator if tile is None else functools.partial(TiledEvaluator, tile=tile)
        )
        evaluator = functools.partial(
            evaluator_type,
            model,
            objective,
            channels=plan.image_channels(model),
            batch=batch,
            micro=micro,
            precision=plan.precision,
            until=until,
        )
        input_size = output_size(transforms, size)
        in_views = tile is None and seen_in_views(model, self.param.seen, transforms)
        final = evaluator(
            input_size if in_views else self.param.seen, traced=traces is not None, traces=traces
        )
        self._final_evaluator = (
            Views(final, transforms, self.seeds, self.param.seen, device) if in_views else final
        )
        self.coarse_steps = self._coarse_steps(objective)
        self.focus = Focus.of(plan.focus, objective, batch, device)
        stage = functools.partial(
            make_stage,
            model,
            evaluator,
            transforms,
            self.seeds,
            plan.steps * samples,
            tile=tile,
            compiled=plan.compile,
            prior=0.0 if tile else plan.prior,
            traced=traces is not None,
            traces=traces or TraceCache(),
        )
        self._full = stage(size, plan.steps - self.coarse_steps)
        self._small = stage(half(size), self.coarse_steps) if self.coarse_steps else self._full
        self.gradient_scale = self._full.evaluator.gradient_scale

        self.state = self.param.init(self.seeds, device)
        self.leaves = list(self.state.values())
        self.first_step = 0
        if resume is not None:
            resume.restore_(self.state)
            self.first_step = resume.done
        self.optimizer = plan.optimizer(self.leaves)
        self._learning_rates = [group["lr"] for group in self.optimizer.param_groups]
        if resume is not None:
            resume.load_optimizer_(self.optimizer)

        self.done = self.first_step
        self.progress = torch.linspace(0, 1, plan.steps, device=device)
        self.history = torch.full((plan.steps, batch), torch.nan, device=device)
        self.heat = torch.zeros(batch, *size, device=device) if importance else None
        self.redirected_relu = redirected_relu()
        self.diagnostics = GradientDiagnostics(batch, device)
        self.best = BestStates(self.leaves, batch, stops=until is not None, best=best)
        self.run = Run(texts_of(objective, batch), self.seeds, plan.steps)

    def stage(self, index: int) -> Stage:
        """Return what the network sees at step ``index``."""
        return self._small if index < self.coarse_steps else self._full

    def _coarse_steps(self, objective: Objective) -> int:
        """Return the number of steps at half the size, 0 for objectives that name positions."""
        parts = objective.parts if isinstance(objective, PerSample) else (objective,)
        steps = round(self.plan.coarse * self.plan.steps)
        shape = self.param.shape
        return steps if steps and all(gains(o, self.model, shape) for o in parts) else 0

    def steps(self) -> Iterator[Step]:
        """Yield the remaining steps, after setting the learning rate of each.

        Each stage has the whole schedule, and an optimizer without memory of the one before.
        """
        schedule, coarse = self.plan.schedule, self.coarse_steps
        for index in range(self.first_step, self.plan.steps):
            if coarse and index == coarse:
                self.optimizer.state.clear()
            if schedule is not None:
                begin, end = (0, coarse) if index < coarse else (coarse, self.plan.steps)
                factor = schedule((index - begin) / max(end - begin - 1, 1))
                rates = zip(self.optimizer.param_groups, self._learning_rates, strict=True)
                for group, rate in rates:
                    group["lr"] = rate * factor
            yield Step(index, self.run)

    def track_step(
        self,
        index: int,
        scores: Tensor,
        gradients: Sequence[Tensor],
        until: Tensor,
        redirected: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Update history, diagnostics and best states; return scores and gradient norms, (B,) each.

        Samples that are done keep their last score.
        """
        if self.best.active is not None:
            active = torch.tensor(self.best.active, device=scores.device)
            scores = torch.where(active, scores, self.history[index - 1])
        norms = self.diagnostics.update(index, scores, gradients, self.gradient_scale, redirected)
        self.best.update(index, self.leaves, scores, until)
        self.diagnostics.moved |= self.best.done
        self.history[index] = scores
        return scores, norms

    def set_gradients(self, index: int, gradients: Sequence[Tensor], norms: Tensor) -> None:
        """Set the gradients of the negative score at step ``index``.

        They are zero for samples where they are not finite, and for frequencies that are not seen.
        """
        for leaf, gradient in zip(self.leaves, gradients, strict=True):
            usable = norms.isfinite()
            if len(gradient) != len(norms):  # shared by all samples
                usable = usable.all()[None]
            usable = usable.view(-1, *(1,) * (gradient.ndim - 1))
            leaf.grad = torch.where(usable, gradient, 0).div_(-self.gradient_scale)
        if index < self.coarse_steps:
            grads = {n: leaf.grad for n, leaf in self.state.items() if leaf.grad is not None}
            self.param.hold_(grads, self._small.finest(self.param.shape))

    @torch.no_grad()
    def result(self, interrupted: bool, record: dict[str, Any]) -> Result:
        """Score the final images and return the result."""
        images = self.param.image(self.state).detach()
        scores, until = self._final_evaluator.values(images, self.param.flatten(images))
        if self.best.finish_(self.done, self.leaves, scores, until):
            images = self.param.image(self.state).detach()
            scores, _ = self._final_evaluator.values(images, self.param.flatten(images))
        texts = self.run.objectives
        failures = {}
        if not interrupted and self.done > self.first_step:
            failures = self.diagnostics.failures(
                texts, scores, self.done > self.redirect, quantized_layers(self.model.net)
            )
        heat = self.heat
        return Result(
            images=images.float().cpu(),
            scores=scores.float().cpu(),
            history=self.history[self.first_step : self.done].cpu(),
            objectives=texts,
            seeds=self.seeds,
            settings={
                "version": __version__,
                "model": self.model.name,
                **self.plan.record,
                **({"views": VIEWS} if isinstance(self._final_evaluator, Views) else {}),
                **record,
            },
            relational=self.objective.relational,
            failures=failures,
            redirected=self.diagnostics.redirected.cpu(),
            reached=self.best.reached.cpu() if self.best.stops else None,
            importance=None if heat is None else _normalized(heat).cpu(),
            state={name: tensor.detach().cpu() for name, tensor in self.state.items()},
            checkpoint=Checkpoint.of(self.state, self.optimizer, self.done),
            interrupted=interrupted,
        )


def _normalized(heat: Tensor) -> Tensor:
    """Divide each sample's heat map (B, *size) by its largest value."""
    largest = heat.flatten(1).amax(1).clamp_min(torch.finfo(heat.dtype).tiny)
    return heat / largest.view(-1, *(1,) * (heat.ndim - 1))
