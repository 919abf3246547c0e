"""How the values of a stream are spread, for many units at once and in constant memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.types import Tensor

#: Values that are kept as they are, and the bins that come after them.
EXACT, BINS = 1024, 2048


class RunningStatistics:
    """Count, mean, standard deviation, extremes and quantiles of each unit.

    Mean and deviation are exact, merged batch by batch in double precision. [Chan1983]_
    Quantiles are exact for the first 1024 values. Beyond them each unit has 2048 equal bins,
    whose width doubles, by merging pairs, whenever a value falls outside: a quantile is then off
    by at most one bin, which is never wider than (max - min) / 512.

    Values that are not finite are left out; ``count`` (units,) has how many were not. ``mean``,
    ``std`` (of the population), ``min`` and ``max`` are (units,), NaN where there was no value.
    """

    def __init__(self, units: int) -> None:
        self.count = torch.zeros(units, dtype=torch.int64)
        self._mean = torch.zeros(units, dtype=torch.float64)
        self._squares = torch.zeros(units, dtype=torch.float64)
        self._low = torch.full((units,), torch.inf, dtype=torch.float64)
        self._high = torch.full((units,), -torch.inf, dtype=torch.float64)
        self._buffer: Tensor | None = None
        self._filled = 0
        self._counts: Tensor | None = None
        #: Where each unit's bins begin, and how wide they are; NaN before its first value.
        self._start = torch.full((units,), torch.nan, dtype=torch.float64)
        self._width = torch.full((units,), torch.nan, dtype=torch.float64)

    @property
    def mean(self) -> Tensor:
        return self._mean.masked_fill(self.count == 0, torch.nan)

    @property
    def std(self) -> Tensor:
        return (self._squares / self.count).sqrt()  # 0 / 0 where there is none

    @property
    def min(self) -> Tensor:
        return self._low.masked_fill(self.count == 0, torch.nan)

    @property
    def max(self) -> Tensor:
        return self._high.masked_fill(self.count == 0, torch.nan)

    @property
    def error(self) -> Tensor:
        """How far a quantile may be off, (units,): one bin, or zero while they are exact."""
        return torch.zeros_like(self._width) if self._counts is None else self._width

    def update(self, values: Tensor) -> None:
        """Take the next values (B, units)."""
        fine = values.isfinite()
        exact = values.double()
        self._merge(exact.masked_fill(~fine, 0), fine)
        self._low = torch.minimum(self._low, exact.masked_fill(~fine, torch.inf).amin(0))
        self._high = torch.maximum(self._high, exact.masked_fill(~fine, -torch.inf).amax(0))
        room = min(EXACT - self._filled, len(values))
        if room:
            if self._buffer is None:
                self._buffer = values.new_full((EXACT, values.shape[1]), torch.nan)
            head = values[:room].masked_fill(~fine[:room], torch.nan)
            self._buffer[self._filled : self._filled + room] = head
            self._filled += room
        if room < len(values):
            if self._counts is None and self._buffer is not None:
                self._counts = torch.zeros(values.shape[1], BINS, dtype=torch.int32)
                first, self._buffer = self._buffer.double(), None
                self._bin(first)
            self._bin(exact[room:].masked_fill(~fine[room:], torch.nan))

    def _merge(self, values: Tensor, fine: Tensor) -> None:
        count = fine.sum(0)
        total = self.count + count
        share = count.double() / total.clamp_min(1)  # of whole numbers it would be in single
        mean = values.sum(0) / count.clamp_min(1)
        squares = ((values - mean).square() * fine).sum(0)
        gap = mean - self._mean
        self._squares += squares + gap.square() * self.count * share
        self._mean += gap * share
        self.count = total

    def _bin(self, values: Tensor) -> None:
        """Count values (B, units), NaN for none, in the bins, which first grow to hold them."""
        assert self._counts is not None
        missing = values.isnan()
        low = values.masked_fill(missing, torch.inf).amin(0)
        high = values.masked_fill(missing, -torch.inf).amax(0)
        some = ~missing.all(0)
        fresh = some & self._start.isnan()
        if fresh.any():
            # A hair more than the values take; around a single one, the same on both sides.
            least = (low.abs() * 2.0**-40).clamp_min(1e-30)
            span = torch.maximum((high - low) * (1 + 2.0**-30), least)
            self._start[fresh] = ((low + high - span) / 2)[fresh]
            self._width[fresh] = (span / BINS)[fresh]
        while True:
            left = some & (low < self._start)
            right = some & ~left & (high >= self._start + self._width * BINS)
            if not (left | right).any():
                break
            self._double(left, right)
        # What rounds to just outside belongs to the outermost bin.
        place = ((values - self._start) / self._width).nan_to_num(0).floor().clamp(0, BINS - 1)
        flat = place.long() + torch.arange(values.shape[1]) * BINS
        self._counts.view(-1).scatter_add_(0, flat.flatten(), (~missing).int().flatten())

    def _double(self, left: Tensor, right: Tensor) -> None:
        """Merge pairs of bins, and make room below (``left``) or above (``right``)."""
        assert self._counts is not None
        for which, half in ((left, slice(BINS // 2, None)), (right, slice(BINS // 2))):
            rows = torch.nonzero(which)[:, 0]
            wider = torch.zeros(len(rows), BINS, dtype=self._counts.dtype)
            wider[:, half] = self._counts[rows].view(-1, BINS // 2, 2).sum(2)
            self._counts[rows] = wider
        self._start[left] -= self._width[left] * BINS
        self._width[left | right] *= 2

    def quantile(self, q: float) -> Tensor:
        """Return the quantile 0 <= q <= 1 of each unit, (units,), interpolated as numpy does.

        Raises
        ------
        FeatvizError
            For another ``q``.
        """
        return self.quantiles([q])[:, 0]

    def quantiles(self, qs: Sequence[float]) -> Tensor:
        """Return the quantiles ``qs`` of each unit, (units, len(qs)), at the cost of one.

        Raises
        ------
        FeatvizError
            For one outside [0, 1].
        """
        wrong = [q for q in qs if not 0 <= q <= 1]
        if wrong:
            raise FeatvizError(f"a quantile is between 0 and 1, not {wrong[0]}")
        share = torch.tensor(list(qs), dtype=torch.float64)
        rank = (self.count - 1).clamp_min(0).double()[:, None] * share
        below = rank.floor()
        lower, upper = self._ranked(below.long()), self._ranked(rank.ceil().long())
        found = torch.lerp(lower, upper, rank - below)
        return found.masked_fill(self.count[:, None] == 0, torch.nan)

    def _ranked(self, rank: Tensor) -> Tensor:
        """Return about where the values number ``rank`` (units, n) from below lie."""
        if self._counts is None:
            if self._buffer is None:
                return torch.full(rank.shape, torch.nan, dtype=torch.float64)
            ordered = self._buffer[: self._filled].double().sort(0).values  # NaN goes last
            return ordered.T.gather(1, rank)
        passed = self._counts.cumsum(1)
        bin_ = torch.searchsorted(passed, rank, right=True).clamp_max(BINS - 1)
        inside = self._counts.gather(1, bin_)
        before = passed.gather(1, bin_) - inside
        share = (rank - before + 0.5) / inside.clamp_min(1)
        found = self._start[:, None] + self._width[:, None] * (bin_ + share)
        low, high = self._low[:, None], self._high[:, None]
        found = torch.where(rank == 0, low, found)
        found = torch.where(rank == self.count[:, None] - 1, high, found)
        return found.clamp(low, high)
