"""Running statistics of a stream, for many units at once and in constant memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.types import Tensor

#: How many values are stored exactly, and the bins that are used beyond them.
EXACT, BINS = 1024, 2048


class RunningStatistics:
    """Running count, mean, standard deviation, extremes and quantiles of each unit.

    Mean and standard deviation are exact, merged batch by batch in double precision. [Chan1983]_
    Quantiles are exact for the first 1024 values. Beyond them each unit has 2048 equal bins, whose
    width doubles, by merging pairs, whenever a value falls outside: the error of a quantile is then
    at most one bin, which is never wider than (max - min) / 512.

    Values that are not finite are left out; ``count`` (units,) is the number of the others.
    ``mean``, ``std`` (of the population), ``min`` and ``max`` are (units,), NaN if there was no
    value.
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
        #: Start and width of each unit's bins; NaN before its first value.
        self._start = torch.full((units,), torch.nan, dtype=torch.float64)
        self._width = torch.full((units,), torch.nan, dtype=torch.float64)

    @property
    def mean(self) -> Tensor:
        return self._mean.masked_fill(self.count == 0, torch.nan)

    @property
    def std(self) -> Tensor:
        return (self._squares / self.count).sqrt()  # 0 / 0 if there are no values

    @property
    def min(self) -> Tensor:
        return self._low.masked_fill(self.count == 0, torch.nan)

    @property
    def max(self) -> Tensor:
        return self._high.masked_fill(self.count == 0, torch.nan)

    @property
    def error(self) -> Tensor:
        """The largest error of a quantile, (units,): one bin, or zero while they are exact."""
        return torch.zeros_like(self._width) if self._counts is None else self._width

    def update(self, values: Tensor) -> None:
        """Add the next values (B, units)."""
        finite = values.isfinite()
        doubles = values.double()
        self._merge(doubles.masked_fill(~finite, 0), finite)
        self._low = torch.minimum(self._low, doubles.masked_fill(~finite, torch.inf).amin(0))
        self._high = torch.maximum(self._high, doubles.masked_fill(~finite, -torch.inf).amax(0))
        room = min(EXACT - self._filled, len(values))
        if room:
            if self._buffer is None:
                self._buffer = values.new_full((EXACT, values.shape[1]), torch.nan)
            head = values[:room].masked_fill(~finite[:room], torch.nan)
            self._buffer[self._filled : self._filled + room] = head
            self._filled += room
        if room < len(values):
            if self._counts is None and self._buffer is not None:
                self._counts = torch.zeros(values.shape[1], BINS, dtype=torch.int32)
                buffered, self._buffer = self._buffer.double(), None
                self._bin(buffered)
            self._bin(doubles[room:].masked_fill(~finite[room:], torch.nan))

    def _merge(self, values: Tensor, finite: Tensor) -> None:
        count = finite.sum(0)
        total = self.count + count
        share = count.double() / total.clamp_min(1)  # integers would divide in single precision
        mean = values.sum(0) / count.clamp_min(1)
        squares = ((values - mean).square() * finite).sum(0)
        difference = mean - self._mean
        self._squares += squares + difference.square() * self.count * share
        self._mean += difference * share
        self.count = total

    def _bin(self, values: Tensor) -> None:
        """Count values (B, units), NaN for none, in the bins, after growing these to hold them."""
        assert self._counts is not None
        missing = values.isnan()
        low = values.masked_fill(missing, torch.inf).amin(0)
        high = values.masked_fill(missing, -torch.inf).amax(0)
        present = ~missing.all(0)
        first_values = present & self._start.isnan()
        if first_values.any():
            # Slightly wider than the range of the values; centred on a single value.
            min_span = (low.abs() * 2.0**-40).clamp_min(1e-30)
            span = torch.maximum((high - low) * (1 + 2.0**-30), min_span)
            self._start[first_values] = ((low + high - span) / 2)[first_values]
            self._width[first_values] = (span / BINS)[first_values]
        while True:
            grow_down = present & (low < self._start)
            grow_up = present & ~grow_down & (high >= self._start + self._width * BINS)
            if not (grow_down | grow_up).any():
                break
            self._double(grow_down, grow_up)
        # Values that round to just outside belong to the outermost bin.
        bin_index = ((values - self._start) / self._width).nan_to_num(0).floor().clamp(0, BINS - 1)
        flat = bin_index.long() + torch.arange(values.shape[1]) * BINS
        self._counts.view(-1).scatter_add_(0, flat.flatten(), (~missing).int().flatten())

    def _double(self, grow_down: Tensor, grow_up: Tensor) -> None:
        """Merge pairs of bins to make room below (``grow_down``) or above (``grow_up``)."""
        assert self._counts is not None
        for selected, half in ((grow_down, slice(BINS // 2, None)), (grow_up, slice(BINS // 2))):
            rows = torch.nonzero(selected)[:, 0]
            merged = torch.zeros(len(rows), BINS, dtype=self._counts.dtype)
            merged[:, half] = self._counts[rows].view(-1, BINS // 2, 2).sum(2)
            self._counts[rows] = merged
        self._start[grow_down] -= self._width[grow_down] * BINS
        self._width[grow_down | grow_up] *= 2

    def quantile(self, q: float) -> Tensor:
        """Return the quantile 0 <= q <= 1 of each unit, (units,), interpolated like numpy.

        Raises
        ------
        FeatvizError
            If ``q`` is outside [0, 1].
        """
        return self.quantiles([q])[:, 0]

    def quantiles(self, qs: Sequence[float]) -> Tensor:
        """Return the quantiles ``qs`` of each unit, (units, len(qs)), at the cost of one.

        Raises
        ------
        FeatvizError
            If one is outside [0, 1].
        """
        invalid = [q for q in qs if not 0 <= q <= 1]
        if invalid:
            raise FeatvizError(f"a quantile must be between 0 and 1, not {invalid[0]}")
        fractions = torch.tensor(list(qs), dtype=torch.float64)
        rank = (self.count - 1).clamp_min(0).double()[:, None] * fractions
        below = rank.floor()
        lower, upper = self._ranked(below.long()), self._ranked(rank.ceil().long())
        values = torch.lerp(lower, upper, rank - below)
        return values.masked_fill(self.count[:, None] == 0, torch.nan)

    def _ranked(self, rank: Tensor) -> Tensor:
        """Return the approximate values of the ranks (units, n), counted from the lowest."""
        if self._counts is None:
            if self._buffer is None:
                return torch.full(rank.shape, torch.nan, dtype=torch.float64)
            ordered = self._buffer[: self._filled].double().sort(0).values  # NaN sorts last
            return ordered.T.gather(1, rank)
        cumulative = self._counts.cumsum(1)
        bin_ = torch.searchsorted(cumulative, rank, right=True).clamp_max(BINS - 1)
        in_bin = self._counts.gather(1, bin_)
        below_bin = cumulative.gather(1, bin_) - in_bin
        share = (rank - below_bin + 0.5) / in_bin.clamp_min(1)
        values = self._start[:, None] + self._width[:, None] * (bin_ + share)
        low, high = self._low[:, None], self._high[:, None]
        values = torch.where(rank == 0, low, values)
        values = torch.where(rank == self.count[:, None] - 1, high, values)
        return values.clamp(low, high)
