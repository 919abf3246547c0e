"""Streaming extremes, quantiles and correlations against numpy on everything at once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from featviz.dataset_examples.correlation import Correlation
from featviz.dataset_examples.ranking import Extremes
from featviz.dataset_examples.statistics import BINS, EXACT, RunningStatistics
from featviz.errors import FeatvizError

#: Few distinct values, so that there are ties, and what a network may return when it fails.
ODD = st.sampled_from([0.0, -0.0, 1.0, 1.5, -2.0, np.inf, -np.inf, np.nan])
CUTS = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def cut(values, sizes):
    """Yield values in batches of these sizes, over and over."""
    start = turn = 0
    while start < len(values):
        size = sizes[turn % len(sizes)]
        yield start, torch.tensor(values[start : start + size])
        start, turn = start + size, turn + 1


def ranked(column, k, largest):
    """Return the indices of the k best, by value and then by index; NaN not at all."""
    known = np.flatnonzero(~np.isnan(column))
    sign = -1 if largest else 1
    return known[np.lexsort((known, sign * column[known]))][:k]


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 4)), elements=ODD),
    CUTS,
    st.integers(1, 12),
    st.booleans(),
)
def test_extremes_are_numpys_sort(values, sizes, k, largest):
    kept = Extremes(values.shape[1], k, largest=largest)
    for start, batch in cut(values, sizes):
        units, ranks, samples = kept.update(batch, torch.arange(start, start + len(batch)))
        assert (kept.places[units, ranks] == -1).all()
        assert (kept.indices[units, ranks] == start + samples).all()
        kept.places[units, ranks] = 100 + start + samples  # they move with their values
    for unit, column in enumerate(values.T):
        wanted = ranked(column, k, largest)
        filler = [-1] * (k - len(wanted))
        assert kept.indices[unit].tolist() == [*wanted.tolist(), *filler]
        assert kept.places[unit].tolist() == [*(100 + wanted).tolist(), *filler]
        np.testing.assert_array_equal(kept.values[unit, : len(wanted)], column[wanted])
        assert kept.values[unit, len(wanted) :].isnan().all()
        assert kept.nans[unit] == np.isnan(column).sum()


@given(
    arrays.arrays(
        np.float64,
        st.tuples(st.integers(1, 60), st.integers(1, 3)),
        elements=st.floats(-1e6, 1e6, allow_nan=False, width=32) | st.just(np.nan),
    ),
    CUTS,
    st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.95, 1.0]),
)
def test_moments_and_quantiles_of_few_are_numpys(values, sizes, q):
    spread = RunningStatistics(values.shape[1])
    for _, batch in cut(values, sizes):
        spread.update(batch)
    for unit, column in enumerate(values.T):
        known = column[~np.isnan(column)]
        assert spread.count[unit] == len(known)
        found = [t[unit].item() for t in (spread.mean, spread.std, spread.min, spread.max)]
        if not len(known):
            assert np.isnan([*found, spread.quantile(q)[unit]]).all()
            continue
        wanted = [known.mean(), known.std(), known.min(), known.max()]
        scale = np.abs(known).max()
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-9 * scale)
        exact = np.quantile(known, q)
        np.testing.assert_allclose(spread.quantile(q)[unit], exact, rtol=1e-12, atol=1e-9 * scale)
    assert (spread.error == 0).all()


def streams(count):
    """Return columns that are hard on bins: growing, jumping, constant, heavy-tailed, sparse."""
    rng = np.random.default_rng(5)
    time = np.arange(count)
    columns = [
        rng.normal(size=count),
        time * 0.01 + rng.normal(size=count),  # the range grows upwards …
        -time * 0.3,  # … and downwards
        np.where(time % 2, 1, -1) * time**1.5,  # … and both ways
        rng.standard_cauchy(count),
        np.full(count, 0.7),
        np.where(time < 2000, 0.0, rng.normal(size=count)),  # dead for a long time
        np.where(time < 1500, 3.0, 3e7),
        np.where(rng.uniform(size=count) < 0.99, 0, rng.uniform(size=count)),
        np.where(time < 1300, np.nan, rng.normal(size=count)),
        1e6 + rng.uniform(size=count),
    ]
    return np.stack(columns, 1)


@pytest.mark.parametrize("batch", [7, 64, 5000])
def test_quantiles_of_many_are_within_the_bound(batch):
    values = streams(5000)
    spread = RunningStatistics(values.shape[1])
    for _, part in cut(values, [batch]):
        spread.update(part)
    assert spread._buffer is None  # what it keeps no longer grows
    assert spread._counts.shape == (values.shape[1], BINS)
    assert (spread._counts.sum(1) == spread.count).all()
    with np.errstate(invalid="ignore"):
        width = np.nanmax(values, 0) - np.nanmin(values, 0)
    assert (spread.error.numpy() <= width / 512 * (1 + 1e-9) + 1e-9).all()
    for q in (0, 0.001, 0.05, 0.25, 0.5, 0.9, 0.999, 1):
        gap = np.abs(spread.quantile(q).numpy() - np.nanquantile(values, q, axis=0))
        assert (gap <= spread.error.numpy() + 1e-9 * np.nanmax(np.abs(values), 0)).all()
    np.testing.assert_allclose(spread.mean, np.nanmean(values, 0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(spread.std, np.nanstd(values, 0), rtol=1e-8, atol=1e-9)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1.0, 1e5]), st.integers(5, 40))
def test_the_bound_holds_on_random_walks(seed, step, batch):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(EXACT + 400, 3)).cumsum(0) * step
    spread = RunningStatistics(3)
    for _, part in cut(values, [batch]):
        spread.update(part)
    assert (spread.error.numpy() <= np.ptp(values, axis=0) / 512 * (1 + 1e-9)).all()
    for q in (0.1, 0.5, 0.99):
        gap = np.abs(spread.quantile(q).numpy() - np.quantile(values, q, axis=0))
        assert (gap <= spread.error.numpy() * (1 + 1e-9)).all()


def test_what_is_not_finite_is_left_out_of_the_spread():
    spread = RunningStatistics(2)
    spread.update(torch.tensor([[1.0, torch.nan], [torch.inf, torch.inf], [3.0, -torch.inf]]))
    assert spread.count.tolist() == [2, 0]
    assert spread.mean[0] == 2
    assert spread.quantile(0.5)[0] == 2
    assert spread.quantile(0.5)[1].isnan()
    with pytest.raises(FeatvizError, match="between 0 and 1, not 2"):
        spread.quantile(2)


@given(
    arrays.arrays(
        np.float64,
        st.tuples(st.integers(3, 40), st.integers(2, 4)),
        elements=st.integers(-50, 50).map(float) | st.just(np.nan),
    ),
    CUTS,
    st.sampled_from([0.0, 1e4]),
)
def test_correlations_are_numpys(values, sizes, offset):
    values = values + offset
    correlation = Correlation(values.shape[1])
    for _, batch in cut(values, sizes):
        correlation.update(batch)
    known = values[~np.isnan(values).any(1)]
    assert correlation.count == len(known)
    found = correlation.matrix().numpy()
    constant = np.ptp(known, axis=0) == 0 if len(known) else np.ones(values.shape[1], dtype=bool)
    assert np.isnan(found[constant]).all()
    assert np.isnan(found[:, constant]).all()
    live = ~constant
    if live.sum() > 1:
        wanted = np.corrcoef(known[:, live].T)
        np.testing.assert_allclose(found[np.ix_(live, live)], wanted, atol=1e-9)
