"""Whether maps predict what happens when regions of the image are removed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.attribution.baselines import baseline as make_baseline
from featviz.attribution.baselines import grid
from featviz.attribution.measures.heat_statistics import pearson
from featviz.attribution.result import Attribution
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.optim.evaluator import Evaluator
from featviz.seeds import generator
from featviz.types import Tensor
from featviz.validation import positive_int


def sensitivity_n(
    result: Attribution,
    model: Model,
    *,
    fractions: Sequence[float] = (0.1, 0.3, 0.5, 0.7),
    samples: int = 32,
    cells: int = 14,
    baseline: str | float | Tensor = "blur",
) -> Tensor:
    """Return how well sums of the heat predict drops of the objective, (B, fractions).

    For each fraction, ``samples`` random sets of that share of the cells are replaced by the
    baseline; the value is the correlation between the sum of the heat in the set and the drop of
    the objective. 1 is perfect. [Ancona2018]_ With one fraction it is the faithfulness correlation
    of [Bhatt2020]_. NaN where either is constant.

    Raises
    ------
    FeatvizError
        For a fraction that is not between 0 and 1, fewer than 3 samples, or a network that the
        result does not fit.
    """
    if positive_int("samples", samples) < 3:
        raise FeatvizError(f"a correlation needs at least 3 samples, not {samples}")
    labels = grid(tuple(result.images.shape[2:]), positive_int("cells", cells))
    count = int(labels.max()) + 1
    rows = []
    for fraction in fractions:
        if not 0 < fraction < 1:
            raise FeatvizError(f"fractions must be between 0 and 1, not {fraction}")
        removed = max(1, round(fraction * count))
        sets = []
        for seed in result.seeds:
            rng = generator(seed, f"sensitivity_n:{removed}")
            orders = torch.stack([torch.randperm(count, generator=rng) for _ in range(samples)])
            sets.append((orders < removed)[:, labels])
        sums, drops = _sums_and_drops(result, model, sets, baseline)
        rows.append(torch.stack([pearson(s, d) for s, d in zip(sums, drops, strict=True)]))
    return torch.stack(rows, 1)


def infidelity(
    result: Attribution,
    model: Model,
    *,
    samples: int = 64,
    baseline: str | float | Tensor = "blur",
) -> Tensor:
    """Return the squared error (B,) of the drops that the map predicts, relative to the drops.

    Random squares, of 1/8 to 1/2 of the shorter side, are replaced by the baseline. The map
    predicts the sum of its heat in the square, times the factor that makes the error smallest, so
    that units do not count: E[(β Σ h - drop)²] / E[drop²]. 0 is perfect; a map that says nothing
    has 1. [Yeh2019]_ NaN where no square changes the objective.

    Raises
    ------
    FeatvizError
        If ``samples`` is not a positive integer, or the network does not fit the result.
    """
    positive_int("samples", samples)
    size = tuple(result.images.shape[2:])
    sets = [_squares(size, samples, seed) for seed in result.seeds]
    values = []
    for sums, drops in zip(*_sums_and_drops(result, model, sets, baseline), strict=True):
        energy = sums.square().sum()
        factor = (sums * drops).sum() / energy if energy > 0 else energy
        error = (factor * sums - drops).square().mean()
        values.append(error / drops.square().mean())
    return torch.stack(values)


def _squares(size: tuple[int, ...], samples: int, seed: int) -> Tensor:
    """Return random squares (samples, *size), true inside."""
    rng = generator(seed, "infidelity")
    shorter = min(size)
    least, most = max(1, shorter // 8), max(1, shorter // 2)
    squares = torch.zeros(samples, *size, dtype=torch.bool)
    for square in squares:
        side = int(torch.randint(least, most + 1, (), generator=rng))
        corner = [int(torch.randint(0, s - side + 1, (), generator=rng)) for s in size]
        square[tuple(slice(c, c + side) for c in corner)] = True
    return squares


def _sums_and_drops(
    result: Attribution, model: Model, sets: list[Tensor], baseline: str | float | Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Return, for each image, the heat in each set (N,), and the drop of the objective (N,)."""
    size = tuple(result.images.shape[2:])
    baselines = make_baseline(baseline, result.images)
    sums, drops = [], []
    with model.session():
        for i, goal in enumerate(result.goals):
            evaluator = Evaluator(model, goal, size)
            image, base = (t[i : i + 1].to(model.device) for t in (result.images, baselines))
            inside = sets[i][:, None].to(model.device)
            values = [
                evaluator.scores(torch.where(some, base, image))
                for some in inside.split(evaluator.batch_size)
            ]
            drops.append((evaluator.scores(image) - torch.cat(values)).double())
            sums.append(sets[i].flatten(1).double() @ result.pixels[i].flatten().double())
    return sums, drops
