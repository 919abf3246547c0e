"""Which state of each sample a run returns: its last, its best, or the first that is enough."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.types import Tensor


class BestStates:
    """Tracks the state of each sample that the run returns.

    With ``stops``, a sample whose ``until`` is above zero is done, and stays as it is. With
    ``best``, each of the others keeps the state with its highest score. With neither, nothing is
    copied.

    Only ``stops`` reads from the device: once a step, to know which samples are done.

    Raises
    ------
    FeatvizError
        If samples share a parameter: then none of them has a state of its own.
    """

    def __init__(self, leaves: Sequence[Tensor], batch: int, *, stops: bool, best: bool) -> None:
        device = leaves[0].device
        if (stops or best) and any(len(leaf) != batch for leaf in leaves):
            raise FeatvizError("until and keep='best' take samples that share no parameter")
        self.stops, self.best = stops, best
        self.copies = [leaf.detach().clone() for leaf in leaves] if stops or best else []
        self.scores = torch.full((batch,), -torch.inf, device=device)
        self.done = torch.zeros(batch, dtype=torch.bool, device=device)
        #: (B,): after how many updates a sample was done; -1 before.
        self.reached = torch.full((batch,), -1, device=device)
        #: Which samples are still optimized; None as long as all are.
        self.active: list[bool] | None = None

    @property
    def all_done(self) -> bool:
        """Whether no sample is optimized any more."""
        return self.active is not None and not any(self.active)

    def update(self, index: int, leaves: Sequence[Tensor], scores: Tensor, until: Tensor) -> None:
        """Take in the scores and ``until`` (B,) of the states before update ``index``."""
        if not self.copies:
            return
        done_now = (until > 0) & ~self.done
        better = done_now
        if self.best:
            better = done_now | (scores > self.scores) & ~self.done
            self.scores = torch.where(better, scores, self.scores)
        for copy, leaf in zip(self.copies, leaves, strict=True):
            copy.copy_(torch.where(_like(better, leaf), leaf.detach(), copy))
        if self.stops:
            self.reached = torch.where(done_now, index, self.reached)
            self.done |= done_now
            active = (~self.done).tolist()
            self.active = None if all(active) else active

    def restore_(self, leaves: Sequence[Tensor], samples: Tensor | None = None) -> None:
        """Put back the tracked states of ``samples`` (B,), in place; by default of those done."""
        if samples is None and self.active is None:
            return
        samples = self.done if samples is None else samples
        for copy, leaf in zip(self.copies, leaves, strict=True):
            leaf.copy_(torch.where(_like(samples, leaf), copy, leaf))

    def finish_(self, index: int, leaves: Sequence[Tensor], scores: Tensor, until: Tensor) -> bool:
        """Take in the states after the last update; return whether any was put back, in place."""
        if not self.copies:
            return False
        done_last = (until > 0) & ~self.done
        self.reached = torch.where(done_last, index, self.reached)
        worse = (self.scores > scores) & ~self.done & ~done_last
        self.restore_(leaves, worse)
        return bool(worse.any())


def _like(samples: Tensor, leaf: Tensor) -> Tensor:
    """Return flags (B,) such that they broadcast to a leaf (B, …)."""
    return samples.view(-1, *(1,) * (leaf.ndim - 1))
