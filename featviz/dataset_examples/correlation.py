"""Correlations between the units of a layer over a stream of images."""

from __future__ import annotations

import torch

from featviz.types import Tensor


class Correlation:
    """Pearson's correlation between ``units`` values, in one pass, with memory of units x units.

    Sums are in double precision and relative to the first row, which keeps digits if the mean is
    far from zero. Rows with a value that is not finite are left out; ``count`` is the number of the
    others.
    """

    def __init__(self, units: int) -> None:
        self.count = 0
        self._origin: Tensor | None = None
        self._sums = torch.zeros(units, dtype=torch.float64)
        self._products = torch.zeros(units, units, dtype=torch.float64)

    def update(self, values: Tensor) -> None:
        """Add the next values (B, units)."""
        rows = values[values.isfinite().all(1)].double()
        if not len(rows):
            return
        if self._origin is None:
            self._origin = rows[0].clone()
        rows = rows - self._origin
        self._sums += rows.sum(0)
        self._products += rows.T @ rows
        self.count += len(rows)

    def matrix(self) -> Tensor:
        """Return the correlations (units, units); NaN for constant units."""
        count = max(self.count, 1)
        covariance = self._products - torch.outer(self._sums, self._sums) / count
        scale = covariance.diagonal().clamp_min(0).sqrt()
        correlations = covariance / torch.outer(scale, scale)
        correlations.fill_diagonal_(1)
        correlations[scale == 0] = torch.nan
        correlations[:, scale == 0] = torch.nan
        return correlations.clamp(-1, 1)
