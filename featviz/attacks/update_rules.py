"""Update rules of attacks: steepest ascent in a norm, momentum, and Auto-PGD."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from featviz.optim.optimizers import SampleAscent
from featviz.types import Tensor

#: The fraction of pixels that an L1 step changes: SLIDE's 99th percentile.
SPARSE = 0.01


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """Return the direction (B, …) of steepest ascent, of length 1 in ``norm``.

    ``linf``: the sign; ``l2``: the normalized gradient; ``l1``: the signs of the largest
    :data:`SPARSE` of the entries, with equal weights ([Tramer2019]_, SLIDE), since the steepest
    direction proper would change one pixel at a time. Zero where the gradient is zero.
    """
    if norm == "linf":
        return gradient.sign()
    flat = gradient.flatten(1)
    if norm == "l2":
        size = flat.norm(dim=1, keepdim=True)
        return (flat / size.clamp_min(torch.finfo(flat.dtype).tiny)).view_as(gradient)
    count = max(1, round(SPARSE * flat.shape[1]))
    largest = flat.abs().topk(count, dim=1).indices
    signs = torch.zeros_like(flat).scatter(1, largest, flat.gather(1, largest).sign())
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)


class Steepest(SampleAscent):
    """Steps of a fixed length in ``norm``: FGSM, BIM and PGD.

    [Goodfellow2015]_, [Kurakin2017]_, [Madry2018]_
    """

    def __init__(self, leaves: list[Tensor], rate: float | Tensor, norm: str) -> None:
        super().__init__(leaves, rate)
        self.norm = norm

    def move_(self, leaf: Tensor, gradient: Tensor, rate: Tensor) -> None:
        leaf.add_(rate * steepest(gradient, self.norm))


class Momentum(Steepest):
    """Steps along the momentum g ← decay g + gradient / |gradient|₁: MI-FGSM.

    [Dong2018]_
    """

    def __init__(
        self, leaves: list[Tensor], rate: float | Tensor, norm: str, decay: float = 1.0
    ) -> None:
        super().__init__(leaves, rate, norm)
        self.decay = decay

    def move_(self, leaf: Tensor, gradient: Tensor, rate: Tensor) -> None:
        size = gradient.abs().flatten(1).mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
        state = self.state[leaf]
        momentum = state.get("momentum", torch.zeros_like(leaf))
        scaled = gradient / size.view(-1, *(1,) * (leaf.ndim - 1))
        state["momentum"] = momentum * self.decay + scaled
        leaf.add_(rate * steepest(state["momentum"], self.norm))


class Apgd(SampleAscent):
    """Auto-PGD: PGD that halves the step size per sample when progress stalls.

    Algorithm 1 of [Croce2020]_ with the constants of its section 3: alpha = 0.75, rho = 0.75,
    checkpoints after 22 % of the steps and then at intervals that shrink by 3 % down to 6 %. As in
    the authors' code, the first step has no momentum, and the point before a restart still enters
    the next momentum term. Use it with ``rate`` = 2 eps and ``keep="best"``.

    ``project`` maps a state into the ball, out of place.
    """

    def __init__(
        self,
        leaves: list[Tensor],
        rate: float | Tensor,
        norm: str,
        *,
        steps: int,
        project: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__(leaves, rate)
        (leaf,) = leaves
        self.norm, self.project = norm, project
        self.rate = self.rate.expand(len(leaf)).clone()
        self.shrink, self.min_interval = max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)
        self.interval = self.steps_left = max(int(0.22 * steps), 1)
        self.count = 0
        self.previous = leaf.detach().clone()  # x of the previous step
        self.best_state, self.best_gradient = self.previous.clone(), torch.zeros_like(leaf)
        self.best_score = self.rate.new_full((len(leaf),), -math.inf)
        self.last_score = self.best_score.clone()
        self.improvements = torch.zeros_like(self.best_score)
        self.checkpoint_best = self.best_score.clone()
        self.just_halved = torch.ones_like(self.best_score, dtype=torch.bool)

    def move_(self, leaf: Tensor, gradient: Tensor, rate: Tensor) -> None:
        scores = self.scores.float()

        def rows(flags: Tensor) -> Tensor:
            return flags.view(-1, *(1,) * (leaf.ndim - 1))

        better = scores > self.best_score
        self.best_state = torch.where(rows(better), leaf, self.best_state)
        self.best_gradient = torch.where(rows(better), gradient, self.best_gradient)
        self.best_score = torch.where(better, scores, self.best_score)
        if self.count:
            self.improvements += scores > self.last_score
            self.steps_left -= 1
        else:
            self.checkpoint_best = self.best_score
        self.last_score = scores
        if self.count and not self.steps_left:
            no_better = ~self.just_halved & (self.checkpoint_best >= self.best_score)
            stuck = (self.improvements <= 0.75 * self.interval) | no_better
            self.rate = torch.where(stuck, self.rate / 2, self.rate)
            rate = torch.where(rows(stuck), rate / 2, rate)
            leaf.copy_(torch.where(rows(stuck), self.best_state, leaf))
            gradient = torch.where(rows(stuck), self.best_gradient, gradient)
            self.just_halved, self.checkpoint_best = stuck, self.best_score
            self.improvements = torch.zeros_like(self.improvements)
            self.interval = self.steps_left = max(self.interval - self.shrink, self.min_interval)
        alpha = 0.75 if self.count else 1.0
        projected = self.project(leaf + rate * steepest(gradient, self.norm))
        moved = leaf + alpha * (projected - leaf) + (1 - alpha) * (leaf - self.previous)
        self.previous = leaf.detach().clone()
        leaf.copy_(self.project(moved))
        self.count += 1
