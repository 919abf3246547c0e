"""Best-state tracking: return the last, the best or the first sufficient state of each sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.types import Tensor


class BestStates:
    """Tracks the state of each sample that the run returns.

    With ``stops``, a sample whose ``until`` is above zero is done and no longer changes. With
    ``best``, the other samples return the state with their highest score. With neither, nothing is
    copied.

    Only ``stops`` synchronizes with the device: once per step, to find the samples that are done.

    Raises
    ------
    FeatvizError
        If samples share a parameter, so that they have no states of their own.
    """

    def __init__(self, leaves: Sequence[Tensor], batch: int, *, stops: bool, best: bool) -> None:
        device = leaves[0].device
        if (stops or best) and any(len(leaf) != batch for leaf in leaves):
            raise FeatvizError("until and keep='best' need samples that share no parameter")
        self.stops, self.best = stops, best
        self.copies = [leaf.detach().clone() for leaf in leaves] if stops or best else []
        self.scores = torch.full((batch,), -torch.inf, device=device)
        self.done = torch.zeros(batch, dtype=torch.bool, device=device)
        #: (B,): the number of updates after which a sample was done; -1 if it is not.
        self.reached = torch.full((batch,), -1, device=device)
        #: Which samples are still being optimized; None means all.
        self.active: list[bool] | None = None

    @property
    def all_done(self) -> bool:
        """Whether no sample is being optimized any more."""
        return self.active is not None and not any(self.active)

    def update(self, index: int, leaves: Sequence[Tensor], scores: Tensor, until: Tensor) -> None:
        """Track the states before update ``index``, given their scores and ``until``, (B,) each."""
        if not self.copies:
            return
        done_now = (until > 0) & ~self.done
        better = done_now
        if self.best:
            better = done_now | (scores > self.scores) & ~self.done
            self.scores = torch.where(better, scores, self.scores)
        for copy, leaf in zip(self.copies, leaves, strict=True):
            copy.copy_(torch.where(_broadcast(better, leaf), leaf.detach(), copy))
        if self.stops:
            self.reached = torch.where(done_now, index, self.reached)
            self.done |= done_now
            active = (~self.done).tolist()
            self.active = None if all(active) else active

    def restore_(self, leaves: Sequence[Tensor], samples: Tensor | None = None) -> None:
        """Restore the tracked states of ``samples`` (B,) in place; by default, of those done."""
        if samples is None and self.active is None:
            return
        samples = self.done if samples is None else samples
        for copy, leaf in zip(self.copies, leaves, strict=True):
            leaf.copy_(torch.where(_broadcast(samples, leaf), copy, leaf))

    def finish_(self, index: int, leaves: Sequence[Tensor], scores: Tensor, until: Tensor) -> bool:
        """Track the states after the last update; return whether any was restored in place."""
        if not self.copies:
            return False
        done_last = (until > 0) & ~self.done
        self.reached = torch.where(done_last, index, self.reached)
        worse = (self.scores > scores) & ~self.done & ~done_last
        self.restore_(leaves, worse)
        return bool(worse.any())


def _broadcast(samples: Tensor, leaf: Tensor) -> Tensor:
    """Reshape flags (B,) so that they broadcast to a leaf (B, …)."""
    return samples.view(-1, *(1,) * (leaf.ndim - 1))
