"""The largest values of a stream, for many units at once and in memory that does not grow."""

from __future__ import annotations

import torch

from featviz.types import Tensor


class Extremes:
    """The ``k`` largest values of each unit (``largest=False``: the smallest), best first.

    Of equal values the one that came first ranks higher, so that the result does not depend on
    how the stream is cut into batches. NaN never ranks.

    Attributes
    ----------
    values
        (units, k); NaN where there were fewer than ``k``.
    indices
        (units, k): what each value was said to belong to; -1 where there were fewer.
    places
        (units, k): whatever whole number the caller notes beside a value, -1 before; it moves
        with the value.
    nans
        (units,): how many values were NaN.
    """

    def __init__(self, units: int, k: int, *, largest: bool = True) -> None:
        self.k, self.largest = k, largest
        self.values = torch.full((units, k), torch.nan)
        self.indices = torch.full((units, k), -1)
        self.places = torch.full((units, k), -1)
        self.nans = torch.zeros(units, dtype=torch.int64)

    def update(self, values: Tensor, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take the next values (B, units), which belong to ``indices`` (B,), in ascending order.

        Returns which entered, each (m,): the unit, its rank, and the row of ``values``. Their
        ``places`` are -1 and may now be set.
        """
        kept = self.values.to(torch.promote_types(self.values.dtype, values.dtype))
        self.nans += values.isnan().sum(0)
        rows = torch.nonzero(self._beats(values, kept).any(0))[:, 0]
        if not len(rows):
            return rows, rows, rows
        batch = len(values)
        pool = torch.cat([kept[rows], values.T[rows].to(kept.dtype)], 1)
        owners = torch.cat([self.indices[rows], indices.expand(len(rows), batch)], 1)
        # Those kept came first, and a stable sort leaves them in front of their equals.
        order = _order(pool, self.largest)[:, : self.k]
        samples = order - self.k
        places = self.places[rows].gather(1, order.clamp_max(self.k - 1))
        best = pool.gather(1, order)
        missing = best.isnan()
        fresh = (samples >= 0) & ~missing
        kept[rows] = best
        held, noted = self.indices.clone(), self.places.clone()
        held[rows] = owners.gather(1, order).masked_fill(missing, -1)
        noted[rows] = places.masked_fill(fresh | missing, -1)
        self.values, self.indices, self.places = kept, held, noted
        which, ranks = torch.nonzero(fresh, as_tuple=True)
        return rows[which], ranks, samples[which, ranks]

    def _beats(self, values: Tensor, kept: Tensor) -> Tensor:
        """Return where a value beats the last one that is kept, (B, units)."""
        last = kept[:, -1]
        better = values > last if self.largest else values < last
        return (better | last.isnan()) & ~values.isnan()


def _order(pool: Tensor, largest: bool) -> Tensor:
    """Return what sorts each row, best first and NaN last; equals keep their order."""
    missing = pool.isnan()
    filled = pool.masked_fill(missing, -torch.inf if largest else torch.inf)
    order = filled.argsort(dim=1, descending=largest, stable=True)
    if missing.any():  # an infinity that is meant still ranks above what is missing
        order = order.gather(
            1, missing.gather(1, order).to(torch.uint8).argsort(dim=1, stable=True)
        )
    return order
