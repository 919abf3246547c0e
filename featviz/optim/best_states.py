"""Which state of each sample a run returns: its last, its best, or the first that is enough."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.types import Tensor


class Kept:
    """The states worth keeping, sample by sample.

    ``stops``: a sample whose check is above zero is done, and stays as it is. ``best``: of the
    others, the state with the highest score is kept. With neither, nothing is copied.

    Only ``stops`` reads from the device: once a step, to know who is done.

    Raises
    ------
    FeatvizError
        If the samples share a parameter: none of them has a state of its own to keep.
    """

    def __init__(self, leaves: Sequence[Tensor], batch: int, *, stops: bool, best: bool) -> None:
        device = leaves[0].device
        if (stops or best) and any(len(leaf) != batch for leaf in leaves):
            raise FeatvizError("until and keep='best' take samples that share no parameter")
        self.stops, self.best = stops, best
        self.copies = [leaf.detach().clone() for leaf in leaves] if stops or best else []
        self.scores = torch.full((batch,), -torch.inf, device=device)
        self.done = torch.zeros(batch, dtype=torch.bool, device=device)
        self.reached = torch.full((batch,), -1, device=device)
        #: Which samples go on; None as long as all do.
        self.awake: list[bool] | None = None

    @property
    def over(self) -> bool:
        """Whether no sample goes on."""
        return self.awake is not None and not any(self.awake)

    def see(self, index: int, leaves: Sequence[Tensor], scores: Tensor, checks: Tensor) -> None:
        """Take in the scores and checks (B,) of the states before update ``index``."""
        if not self.copies:
            return
        enough = (checks > 0) & ~self.done
        better = enough
        if self.best:
            better = enough | (scores > self.scores) & ~self.done
            self.scores = torch.where(better, scores, self.scores)
        for copy, leaf in zip(self.copies, leaves, strict=True):
            copy.copy_(torch.where(_rows(better, leaf), leaf.detach(), copy))
        if self.stops:
            self.reached = torch.where(enough, index, self.reached)
            self.done |= enough
            awake = (~self.done).tolist()
            self.awake = None if all(awake) else awake

    def hold_(self, leaves: Sequence[Tensor], which: Tensor | None = None) -> None:
        """Put back the kept states of the samples that are done, or of ``which``, in place."""
        if which is None and self.awake is None:
            return
        which = self.done if which is None else which
        for copy, leaf in zip(self.copies, leaves, strict=True):
            leaf.copy_(torch.where(_rows(which, leaf), copy, leaf))

    def finish_(self, index: int, leaves: Sequence[Tensor], scores: Tensor, checks: Tensor) -> bool:
        """Take in the states after the last update; tell whether any was put back, in place."""
        if not self.copies:
            return False
        last = (checks > 0) & ~self.done
        self.reached = torch.where(last, index, self.reached)
        worse = (self.scores > scores) & ~self.done & ~last
        self.hold_(leaves, worse)
        return bool(worse.any())


def _rows(which: Tensor, leaf: Tensor) -> Tensor:
    return which.view(-1, *(1,) * (leaf.ndim - 1))
