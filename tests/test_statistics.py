"""Intervals against SciPy, by hand, and under permutation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm, spearmanr, t

from editbench.base import seeding
from editbench.stats.intervals import (
    SeedSpread,
    bootstrap_mean,
    bootstrap_ratios,
    crossed_means,
    crossed_share,
    holm,
    median_interval,
    resampled_means,
    resampled_sums,
    seed_draws,
    seed_spread,
    shared_seed_spread,
    wilson,
)


@pytest.mark.parametrize("k, n", [(0, 1), (0, 40), (1, 3), (17, 40), (40, 40), (2900, 3000)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_is_scipys(k, n, level):
    expected = binomtest(k, n).proportion_ci(level, method="wilson")
    np.testing.assert_allclose(wilson(k, n, level), (expected.low, expected.high), atol=1e-12)


def test_wilson_of_nothing():
    assert np.isnan(wilson(0, 0)).all()


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 -> 0.04, 0.06, 0.06, 0.04, made monotone: 0.04, 0.06, 0.06, 0.06
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.04, 0.02])), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, np.nan, 0.4])), [0.9, np.nan, 0.8])
    np.testing.assert_allclose(holm(np.array([0.7, 0.6])), [1.0, 1.0])
    assert len(holm(np.array([]))) == 0


def test_bootstrap_interval_is_the_normal_one_for_many_samples():
    values = np.random.default_rng(0).normal(3.0, 2.0, 2000)
    half = norm.ppf(0.975) * values.std() / np.sqrt(2000)
    np.testing.assert_allclose(
        bootstrap_mean(values, draws=4000), (values.mean() - half, values.mean() + half), atol=0.01
    )


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30), st.randoms(use_true_random=False))
def test_intervals_do_not_depend_on_order(values, shuffler):
    other = list(values)
    shuffler.shuffle(other)
    assert bootstrap_mean(np.array(values), draws=50) == bootstrap_mean(np.array(other), draws=50)
    assert median_interval(np.array(values)) == median_interval(np.array(other))


def test_resampling_takes_whole_rows_and_has_streams():
    sums = resampled_sums(np.column_stack([np.ones(7), np.arange(7.0), np.arange(7.0)]), 300)
    assert (sums[:, 0] == 7).all()
    assert (sums[:, 1] == sums[:, 2]).all()
    assert len(set(sums[:, 1])) > 10
    np.testing.assert_array_equal(sums[:, 0:1], resampled_sums(np.ones((7, 1)), 300))
    other = resampled_sums(np.arange(7.0)[:, None], 300, "another stream")
    assert not np.array_equal(other[:, 0], sums[:, 1])


def test_ratio_of_identical_clusters_has_no_width_and_empty_columns_none():
    low, high = bootstrap_ratios(
        np.full((9, 2), [6.0, 0.0]), np.full((9, 2), [2.0, 0.0]), draws=100
    )
    np.testing.assert_array_equal([low, high], [[3.0, np.nan]] * 2)


def test_a_single_value_has_no_interval():
    """Resampling one start gives that start again, which would be an interval without width."""
    one = np.array([3.0, np.nan])
    assert np.isnan([bootstrap_mean(one), median_interval(one), crossed_means(one[:, None])]).all()
    assert np.isnan(crossed_means(np.array([[1.0, 2.0, 3.0]]))).all()
    # Two starts have all values in between.
    assert bootstrap_mean(np.array([1.0, 3.0])) == (1.0, 3.0)
    assert crossed_means(np.array([[1.0, 1.0], [3.0, 3.0]])) == (1.0, 3.0)
    # Two clusters, of which the second column has one alone.
    low, high = bootstrap_ratios(np.array([[1.0, 1.0], [3.0, 0.0]]), np.array([[1, 1], [1, 0]]))
    assert (low[0], high[0]) == (1.0, 3.0) and np.isnan([low[1], high[1]]).all()


def test_median_interval_covers():
    rng = np.random.default_rng(1)
    covered = [
        low <= 0 <= high
        for low, high in (median_interval(rng.normal(size=25)) for _ in range(2000))
    ]
    assert 0.95 <= np.mean(covered) < 0.98
    assert median_interval(np.array([2.0, 1.0, np.nan])) == (1.0, 2.0)
    for n in (5, 6, 7, 30, 200, 3001):
        rank = max(int(binom.ppf(0.025, n, 0.5)) - 1, 0)
        assert median_interval(np.arange(n)) == (rank, n - 1 - rank)


def test_resampled_means_are_those_of_rows_drawn_by_hand():
    rng = np.random.default_rng(4)
    values = rng.normal(size=(40, 3))
    values[:25, 1] = np.nan
    values[:, 2] = np.nan
    found = resampled_means(values, 200, "a stream")
    picked = seeding.rng(0, "a stream", 40).integers(0, 40, (200, 40))
    expected = np.nanmean(values[picked][:, :, :2], 1)
    np.testing.assert_allclose(found[:, :2], expected, atol=1e-12)
    assert np.isnan(found[:, 2]).all()


@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_over_starts_and_seeds_cover(seeds, spread):
    """Starts, seeds and chance are drawn anew; 0 is inside in about 95 % of 200 trials."""
    rng = np.random.default_rng(seeds)
    inside = 0
    trials = 200
    for _ in range(trials):
        start = 0.5 * rng.normal(size=(60, 1))
        seed = spread * rng.normal(size=(1, seeds))
        low, high = crossed_means(start + seed + 0.7 * rng.normal(size=(60, seeds)), draws=400)
        inside += low <= 0 <= high
    # Three standard deviations of a share of 0.95 among the trials; above it is no defect.
    assert inside / trials > 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_shares_over_starts_and_seeds_cover(spread):
    rng = np.random.default_rng(1)
    truth = norm.sf(0.3 / np.sqrt(0.5**2 + spread**2 + 0.7**2))
    inside = 0
    trials = 400
    for _ in range(trials):
        start = 0.5 * rng.normal(size=(60, 1))
        noise = spread * rng.normal(size=(1, 5)) + 0.7 * rng.normal(size=(60, 5))
        low, high = crossed_share((start + noise > 0.3).astype(float))
        inside += low <= truth <= high
    assert inside / trials > 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)


def test_the_ends_of_a_share_solve_wilsons_equation():
    """At each end, the share lies z standard deviations of the effective number away."""
    rng = np.random.default_rng(0)
    values = (rng.uniform(size=(40, 3)) < [0.3, 0.5, 0.8]).astype(float)
    wider = t.ppf(0.975, 2) / norm.ppf(0.975)
    variance = values.mean(1).var() / 40 + seed_spread(values).variance * wider**2
    share = values.mean()
    effective = share * (1 - share) / variance
    assert effective < 40
    ends = np.array(crossed_share(values))
    away = (share - ends) / np.sqrt(ends * (1 - ends) / effective)
    np.testing.assert_allclose(away, norm.ppf(0.975) * np.array([1, -1]))


def test_deviations_due_to_seeds_are_quantiles_of_students_t():
    """Three seeds whose mean has the standard deviation 2."""
    found = seed_draws(SeedSpread(4.0, 3), 2000, "a mean")
    assert np.isfinite(found).all()
    ranked = np.sort(found)
    np.testing.assert_allclose(ranked, -ranked[::-1], atol=1e-6)
    np.testing.assert_allclose(t.cdf(ranked / 2, 2), (np.arange(2000) + 0.5) / 2000, atol=1e-9)
    # Different means have the same deviations in independent orders.
    other = seed_draws(SeedSpread(4.0, 3), 2000, "another mean")
    np.testing.assert_array_equal(np.sort(other), ranked)
    assert abs(spearmanr(found, other).statistic) < 0.1
    for spread in (SeedSpread(0.0, 3), SeedSpread(4.0, 1)):
        assert not seed_draws(spread, 5, "a mean").any()


def test_the_shared_part_of_seeds_is_the_covariances_between_attributes():
    """The variance of the mean by seeds is that of the seeds' means, of which the attributes' own
    variances are known already."""
    means = np.random.default_rng(0).normal(size=(5, 1)) + np.random.default_rng(1).normal(
        0, 0.5, (5, 4)
    )
    found = shared_seed_spread(means)
    whole = means.mean(1).var(ddof=1) / 5
    own = sum(column.var(ddof=1) / 5 for column in means.T) / 4**2
    assert found.variance == pytest.approx(whole - own) and found.seeds == 5
    # Opposite effects cancel: nothing is taken from the attributes' own variances.
    assert shared_seed_spread(means[:, :1] * [[1, -1]]).variance == 0
    assert shared_seed_spread(means[:, :1]).variance == 0
    # Two seeds are always perfectly correlated.
    assert shared_seed_spread(means[:3]).variance > 0
    assert shared_seed_spread(means[:2]).variance == shared_seed_spread(means[:1]).variance == 0


def test_an_interval_stays_above_0_where_every_start_does():
    """Three seeds that differ wildly: Student's t with two degrees of freedom reaches below 0."""
    values = np.random.default_rng(0).uniform(size=(40, 1)) + [[0.1, 0.2, 3.0]]
    low, high = crossed_means(values)
    assert low == 0 and high > values.mean()
    below, _ = crossed_means(values - 0.5)
    assert below < -0.5


def test_the_interval_of_a_share_with_missing_values_stays_below_1():
    """Seeds that do not have all starts: Wilson's interval does not serve, and t reaches above 1."""
    rng = np.random.default_rng(0)
    values = (rng.uniform(size=(60, 3)) < [0.85, 0.97, 1.0]).astype(float)
    values[rng.uniform(size=values.shape) < 0.2] = np.nan
    low, high = crossed_means(values)
    assert 0 < low < np.nanmean(values) < high == 1
    # What only happens to lie below 1 is no share.
    assert crossed_means(0.99 * values)[1] > 1


def test_one_seed_has_the_intervals_of_starts_alone():
    values = np.random.default_rng(0).uniform(size=(50, 1))
    assert crossed_means(values) == bootstrap_mean(values[:, 0])
    hits = (values > 0.3).astype(float)
    assert crossed_share(hits) == wilson(int(hits.sum()), 50)
    # Seeds that agree everywhere tell no more than one.
    assert crossed_share(np.repeat(hits, 3, 1)) == pytest.approx(wilson(int(hits.sum()), 50))
    assert crossed_share(np.zeros((50, 3))) == wilson(0, 50)
