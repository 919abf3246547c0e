"""The extreme values of a stream, for many units at once and in constant memory."""

from __future__ import annotations

import torch

from featviz.types import Tensor


class Extremes:
    """The ``k`` largest values of each unit (``largest=False``: the smallest), best first.

    Of equal values the first one ranks higher, so that the result does not depend on how the stream
    is split into batches. NaN never ranks.

    Attributes
    ----------
    values
        (units, k); NaN if there were fewer than ``k``.
    indices
        (units, k): the index that came with each value; -1 if there were fewer.
    places
        (units, k): an integer that the caller may store with each value, initially -1; it moves
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
        """Add the next values (B, units), which belong to ``indices`` (B,), in ascending order.

        Returns the new entries, each (m,): the unit, its rank, and the row of ``values``. Their
        ``places`` are -1 and may now be set.
        """
        best = self.values.to(torch.promote_types(self.values.dtype, values.dtype))
        self.nans += values.isnan().sum(0)
        units = torch.nonzero(self._beats(values, best).any(0))[:, 0]
        if not len(units):
            return units, units, units
        batch = len(values)
        candidates = torch.cat([best[units], values.T[units].to(best.dtype)], 1)
        owner_indices = torch.cat([self.indices[units], indices.expand(len(units), batch)], 1)
        # Earlier values come first, and a stable sort keeps them ahead of equal ones.
        order = _order(candidates, self.largest)[:, : self.k]
        samples = order - self.k
        places = self.places[units].gather(1, order.clamp_max(self.k - 1))
        ranked = candidates.gather(1, order)
        missing = ranked.isnan()
        fresh = (samples >= 0) & ~missing
        best[units] = ranked
        all_indices, all_places = self.indices.clone(), self.places.clone()
        all_indices[units] = owner_indices.gather(1, order).masked_fill(missing, -1)
        all_places[units] = places.masked_fill(fresh | missing, -1)
        self.values, self.indices, self.places = best, all_indices, all_places
        row, ranks = torch.nonzero(fresh, as_tuple=True)
        return units[row], ranks, samples[row, ranks]

    def _beats(self, values: Tensor, ranked: Tensor) -> Tensor:
        """Return which values beat the last one that is ranked, (B, units)."""
        last = ranked[:, -1]
        better = values > last if self.largest else values < last
        return (better | last.isnan()) & ~values.isnan()


def _order(values: Tensor, largest: bool) -> Tensor:
    """Return the indices that sort each row, best first and NaN last; ties keep their order."""
    missing = values.isnan()
    filled = values.masked_fill(missing, -torch.inf if largest else torch.inf)
    order = filled.argsort(dim=1, descending=largest, stable=True)
    if missing.any():  # actual infinities still rank above missing values
        order = order.gather(
            1, missing.gather(1, order).to(torch.uint8).argsort(dim=1, stable=True)
        )
    return order
