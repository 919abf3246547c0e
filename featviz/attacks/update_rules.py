"""Update rules of attacks: steepest ascent in a norm, with momentum, and APGD's."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from featviz.optim.optimizers import SampleAscent
from featviz.types import Tensor

#: The share of the pixels that an L1 step moves: SLIDE's 99th percentile.
SPARSE = 0.01


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """Return the direction of length 1 in ``norm`` along which a score rises most, (B, …).

    ``linf``: the sign; ``l2``: the gradient over its norm; ``l1``: the signs of the largest
    :data:`SPARSE` of the entries, equally long ([Tramer2019]_, SLIDE), as the steepest direction
    proper would move one pixel at a time. Zero where the gradient is.
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
    """Steps along g ← decay g + gradient / |gradient|₁, as MI-FGSM.

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
        past = state.get("momentum", torch.zeros_like(leaf))
        scaled = gradient / size.view(-1, *(1,) * (leaf.ndim - 1))
        state["momentum"] = past * self.decay + scaled
        leaf.add_(rate * steepest(state["momentum"], self.norm))


class Apgd(SampleAscent):
    """Auto-PGD: a step that halves, sample by sample, where it no longer pays.

    Algorithm 1 of [Croce2020]_ with the constants of its section 3: alpha = 0.75, rho = 0.75,
    checkpoints after 22 % of the steps and then ever closer, by 3 % down to 6 %. As in the
    authors' code, the first step has no momentum, and the point before a restart keeps its place
    in the next momentum term. Start with ``rate`` = 2 eps, and let the loop keep the best.

    ``project`` moves a state into the ball, out of place.
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
        self.shrink, self.least = max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)
        self.span = self.left = max(int(0.22 * steps), 1)
        self.count = 0
        self.before = leaf.detach().clone()  # x of the step before
        self.best, self.slope = self.before.clone(), torch.zeros_like(leaf)  # and its gradient
        self.top = self.rate.new_full((len(leaf),), -math.inf)
        self.last = self.top.clone()
        self.rises = torch.zeros_like(self.top)
        self.old_top, self.halved = self.top.clone(), torch.ones_like(self.top, dtype=torch.bool)

    def move_(self, leaf: Tensor, gradient: Tensor, rate: Tensor) -> None:
        scores = self.scores.float()

        def rows(flags: Tensor) -> Tensor:
            return flags.view(-1, *(1,) * (leaf.ndim - 1))

        better = scores > self.top
        self.best = torch.where(rows(better), leaf, self.best)
        self.slope = torch.where(rows(better), gradient, self.slope)
        self.top = torch.where(better, scores, self.top)
        if self.count:
            self.rises += scores > self.last
            self.left -= 1
        else:
            self.old_top = self.top
        self.last = scores
        if self.count and not self.left:
            stuck = (self.rises <= 0.75 * self.span) | ~self.halved & (self.old_top >= self.top)
            self.rate = torch.where(stuck, self.rate / 2, self.rate)
            rate = torch.where(rows(stuck), rate / 2, rate)
            leaf.copy_(torch.where(rows(stuck), self.best, leaf))
            gradient = torch.where(rows(stuck), self.slope, gradient)
            self.halved, self.old_top, self.rises = stuck, self.top, torch.zeros_like(self.rises)
            self.span = self.left = max(self.span - self.shrink, self.least)
        share = 0.75 if self.count else 1.0
        inner = self.project(leaf + rate * steepest(gradient, self.norm))
        moved = leaf + share * (inner - leaf) + (1 - share) * (leaf - self.before)
        self.before = leaf.detach().clone()
        leaf.copy_(self.project(moved))
        self.count += 1
