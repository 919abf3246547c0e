"""Attribution by the values behind random masks."""

from __future__ import annotations

import torch

from featviz.attribution.case import Case
from featviz.errors import FeatvizError
from featviz.param.mask import cell_counts
from featviz.resample import resize
from featviz.seeds import generator
from featviz.types import Tensor

#: The probability that a cell of a mask is open.
_OPEN = 0.5


def rise(case: Case) -> Tensor:
    """Return the covariance of the value with a pixel's visibility, over its variance.

    [Petsiuk2018]_

    ``steps`` random masks, a grid of ``cells`` that are open with probability 1/2, enlarged
    linearly and shifted at random, show the image where they are open and the baseline elsewhere.
    The result estimates E[o | pixel visible] - E[o | hidden]. The paper weighs masks by o itself, a
    probability; here its mean is subtracted first, so that a constant in o is not noise.

    Raises
    ------
    FeatvizError
        If there are fewer than 2 masks, or if the objective is not finite behind one.
    """
    steps, size = case.options["steps"], tuple(case.image.shape[2:])
    if steps < 2:
        raise FeatvizError("rise needs at least 2 steps: with one mask nothing varies")
    rng = generator(case.seed, "rise")
    totals = torch.zeros(3, *size, dtype=torch.float64)  # of M, of M², and of o M
    count, value_sum = 0, 0.0
    for first in range(0, steps, case.batch_size):
        masks = random_masks(size, case.options["cells"], min(case.batch_size, steps - first), rng)
        opacity = masks[:, None].to(case.image)
        values = case.evaluator.scores(case.base.lerp(case.image, opacity)).double()
        if not values.isfinite().all():
            raise FeatvizError(
                f"rise: {case.evaluator.objective} is not finite behind masks: use another baseline"
            )
        count += len(values)
        value_sum += float(values.sum())
        masks = masks.double()
        totals[0] += masks.sum(0)
        totals[1] += masks.square().sum(0)
        totals[2] += torch.tensordot(values, masks, dims=1)
    mean, square, product = totals / count
    covariance = product - mean * (value_sum / count)
    variance = square - mean.square()
    shares = torch.where(variance > 0, covariance / variance.clamp_min(1e-12), 0)
    return shares[None, None].to(case.image)


def random_masks(size: tuple[int, ...], cells: int, count: int, rng: torch.Generator) -> Tensor:
    """Return smooth random masks (count, *size) in [0, 1]; a cell is open with probability 1/2.

    The grid is one cell larger than the image and shifted by a random part of a cell.
    """
    counts = cell_counts(size, cells)
    steps = [-(-side // n) for side, n in zip(size, counts, strict=True)]
    grid = [n + 1 for n in counts]
    large = tuple(n * step for n, step in zip(grid, steps, strict=True))
    masks = []
    for _ in range(count):
        open_cells = (torch.rand(1, 1, *grid, generator=rng) < _OPEN).float()
        corner = [int(torch.randint(0, step, (), generator=rng)) for step in steps]
        window = tuple(slice(c, c + side) for c, side in zip(corner, size, strict=True))
        masks.append(resize(open_cells, large)[0, 0][window])
    return torch.stack(masks)
