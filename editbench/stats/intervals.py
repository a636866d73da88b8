"""Intervals and paired tests. They are deterministic, and the order in which samples arrive does not count.

All intervals are two-sided, of level 0.95. Resampling is over starts
(clusters), never over the steps of one start, which are not independent.

Several seeds of one method walk from the same starts: starts and seeds are crossed, and a mean over
both varies with either. `seed_spread` estimates what the choice of seeds adds to its variance, from
the two-way analysis of variance with random effects (Searle, Casella & McCulloch: Variance
Components, 1992, ch. 4), and `seed_draws` adds that part to bootstrap draws over starts. It is drawn
from Student's t with S - 1 degrees of freedom, since resampling the S seeds themselves would make
three seeds look too certain (the ends of its interval are the smallest and the largest of them).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, ndtri, stdtrit

from editbench.base import seeding

LEVEL = 0.95
DRAWS = 2000
CHUNK = 4_000_000  # indices drawn at once, so that memory does not grow with draws * samples
ROUNDING = 1e-12  # differences below it, relative to 1, are equal in exact arithmetic

Interval = tuple[float, float]
NO_INTERVAL: Interval = (float("nan"), float("nan"))


def wilson(successes: float, n: float, level: float = LEVEL) -> Interval:
    """Wilson score interval of a proportion (Wilson, 1927, without continuity correction); NaN where n is 0."""
    if n == 0:
        return NO_INTERVAL
    # Two-sided: half of what `level` leaves out lies beyond each end.
    z = ndtri(0.5 + level / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = float((centre - half) / (1 + z * z / n))
    high = float((centre + half) / (1 + z * z / n))
    # The ends are exact in theory; rounding would leave 1e-17.
    if successes == 0:
        low = 0.0
    if successes == n:
        high = 1.0
    return low, high


def resampled_sums(rows: np.ndarray, draws: int = DRAWS, stream: str = "bootstrap") -> np.ndarray:
    """Sum rows drawn with replacement, n in each draw.

    Args:
        rows: (n, m), in an order of their own (sorted by start): the result depends on it.
        draws: how many sums.
        stream: of the draws, together with n; two uses have two streams, so that they differ.

    Returns:
        (draws, m) float64.
    """
    rows = np.asarray(rows, np.float64)
    n = len(rows)
    rng = seeding.rng(0, stream, len(rows))
    size = max(1, CHUNK // max(n, 1))
    sums = []
    for begin in range(0, draws, size):
        count = min(size, draws - begin)
        # One bincount serves many draws: draw k counts in the bins k * n to k * n + n - 1.
        index = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        weights = np.bincount(index.ravel(), minlength=count * n).reshape(count, n)
        sums.append(weights.astype(np.float64) @ rows)
    return np.concatenate(sums)


def resampled_means(
    values: np.ndarray, draws: int = DRAWS, stream: str = "bootstrap"
) -> np.ndarray:
    """Means of columns over rows drawn with replacement; all columns share the drawn rows.

    It is a paired bootstrap: of differences, where a column holds the differences of a pair, or of
    several means whose differences are taken afterwards.

    Args:
        values: (n, m), NaN where a column has no value of a row. A mean is over the rows that its
            column has. The result depends on the order of the rows.
        draws: how many means.
        stream: of the draws, as of `resampled_sums`.

    Returns:
        (draws, m) float64, NaN where a draw has no value of a column.
    """
    held = np.isfinite(values)
    width = values.shape[1]
    # How many values there are is drawn with the values.
    columns = np.concatenate([np.where(held, values, 0.0), held], 1)
    sums = resampled_sums(columns, draws, stream)
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[:, :width] / sums[:, width:]


def percentiles(samples: np.ndarray) -> np.ndarray:
    """Percentile interval of bootstrap samples, without the draws that are NaN: (draws, m) -> (2, m)."""
    out = np.full((2, samples.shape[1]), np.nan)
    # nanpercentile warns of a column without any number.
    some = np.isfinite(samples).any(0)
    if some.any():
        tail = 50 * (1 - LEVEL)
        known = samples[:, some]
        # The same numbers in half the time, where there is no NaN to leave out.
        percentile = np.nanpercentile if np.isnan(known).any() else np.percentile
        out[:, some] = percentile(known, [tail, 100 - tail], axis=0)
    return out


def bootstrap_mean(values: np.ndarray, draws: int = DRAWS) -> Interval:
    """Percentile interval of a mean; NaN values are left out. Any order of the values gives the same interval.

    It is too narrow for a few values: read it with the count. Of a single value there is no interval.
    """
    # A draw picks values by their places, so the places must not depend on the order given.
    values = np.sort(np.asarray(values, np.float64))
    values = values[np.isfinite(values)]
    # Resampling one value gives that value again: it says nothing of others.
    if len(values) < 2:
        return NO_INTERVAL
    low, high = percentiles(resampled_sums(values[:, None], draws) / len(values))[:, 0]
    return float(low), float(high)


def bootstrap_ratios(
    numerators: np.ndarray, denominators: np.ndarray, draws: int = DRAWS
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals of sum(numerator) / sum(denominator); clusters are resampled whole.

    Args:
        numerators: (n, m), one row a cluster, sorted by cluster.
        denominators: (n, m) likewise.
        draws: how many.

    Returns:
        low (m,) and high (m,); NaN where fewer than two denominators are above 0.
    """
    width = numerators.shape[1]
    few = (denominators > 0).sum(0) < 2
    if few.all():
        nothing = np.full(width, np.nan)
        return nothing, nothing
    sums = resampled_sums(np.concatenate([numerators, denominators], 1), draws)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(sums[:, width:] > 0, sums[:, :width] / sums[:, width:], np.nan)
    # Resampling one cluster gives that cluster again: it says nothing of others.
    ratios[:, few] = np.nan
    low, high = percentiles(ratios)
    return low, high


def median_interval(values: np.ndarray) -> Interval:
    """Distribution-free interval of a median, from order statistics.

    It covers at least LEVEL where n allows that; with too few values (n < 6) it is the
    whole range of the values. Of a single value there is no interval.
    """
    values = np.sort(np.asarray(values, np.float64))
    values = values[np.isfinite(values)]
    n = len(values)
    if n < 2:
        return NO_INTERVAL
    # The number of values below the median is binomial (n, 1/2).
    # With k its quantile at the tail, P(fewer than k) is below the tail: the k-th value from each
    # end covers enough. Its index is k - 1.
    # `scipy.stats.binom` has the quantile too, but takes a second to import.
    up_to = bdtr(np.arange(n + 1), n, 0.5)  # P(at most 0, 1, ..., n)
    quantile = int(np.searchsorted(up_to, (1 - LEVEL) / 2))
    rank = max(quantile - 1, 0)
    return float(values[rank]), float(values[n - 1 - rank])


@dataclass(frozen=True)
class SeedSpread:
    """What the choice of seeds adds to the variance of a mean.

    Args:
        variance: of the mean, in the square of its unit; 0 of one seed, about which nothing is known.
        seeds: how many, S.
    """

    variance: float = 0.0
    seeds: int = 1


def seed_spread(values: np.ndarray) -> SeedSpread:
    """Variance that the choice of seeds adds to a mean over starts and seeds.

    max(0, MS_seeds - MS_residual) / (n S), the two mean squares of the two-way layout: with equal
    seeds, or with seeds that differ by no more than chance at single starts, it is 0.

    Args:
        values: (starts, S), NaN where a seed has no value of a start. Only starts that all seeds have
            are used; with fewer than two the variance of the seeds' own means stands in.
    """
    values = np.asarray(values, np.float64)
    seeds = values.shape[1]
    if seeds < 2:
        return SeedSpread(0.0, seeds)
    whole = values[np.isfinite(values).all(1)]
    n = len(whole)
    if n < 2:
        known = [
            column[np.isfinite(column)].mean() for column in values.T if np.isfinite(column).any()
        ]
        spread = float(np.var(known, ddof=1)) / len(known) if len(known) > 1 else 0.0
        return SeedSpread(spread, seeds)
    by_seed = whole.mean(0)
    residual = whole - whole.mean(1, keepdims=True) - by_seed + whole.mean()
    between = n * np.var(by_seed, ddof=1)
    chance = (residual**2).sum() / ((n - 1) * (seeds - 1))
    return SeedSpread(float(max(0.0, between - chance)) / (n * seeds), seeds)


def seed_draws(spread: SeedSpread, draws: int, *stream: object) -> np.ndarray:
    """Deviations of a mean by its seeds: (draws,), Student's t with the spread's scale.

    They are the quantiles of the distribution in a random order, so that their tails have no noise.

    Args:
        spread: of the mean.
        draws: how many.
        stream: names of the draw; other means have other names, so that they are independent.
    """
    if spread.variance <= 0 or spread.seeds < 2:
        return np.zeros(draws)
    places = (seeding.rng(0, "seeds", *stream).permutation(draws) + 0.5) / draws
    return np.sqrt(spread.variance) * stdtrit(spread.seeds - 1, places)


def crossed_means(values: np.ndarray, draws: int = DRAWS) -> Interval:
    """Interval of a mean over starts and seeds: a bootstrap over starts, and the part of the seeds.

    Args:
        values: (starts, S), NaN where a seed has no value of a start. A start weighs the same however
            many of the seeds have it.

    Returns:
        With one seed the interval of `bootstrap_mean`; of a single start there is none. It does not go below 0 where no value does: with
        few seeds the tails of Student's t are long, and such a mean is hardly negative. Nor does it go
        above 1 where every value is 0 or 1, for the mean is a share then.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values).any(1)]
    if len(values) < 2:
        return NO_INTERVAL
    if values.shape[1] == 1:
        return bootstrap_mean(values[:, 0], draws)
    means = np.sort(np.nanmean(values, 1))
    resampled = resampled_sums(means[:, None], draws) / len(means)
    resampled += seed_draws(seed_spread(values), draws)[:, None]
    low, high = percentiles(resampled)[:, 0]
    if np.isin(values[np.isfinite(values)], (0.0, 1.0)).all():
        high = min(high, 1.0)
    return above_zero(float(low), values), float(high)


def above_zero(low: float, values: np.ndarray) -> float:
    """The lower end of the interval of a mean, raised to 0 where no value is below 0."""
    return max(low, 0.0) if np.nanmin(values) >= 0 else low


def crossed_share(values: np.ndarray) -> Interval:
    """Interval of a share over starts and seeds: Wilson's, at the effective number of starts.

    With the variance V of the share, over starts and seeds, that number is p (1 - p) / V (Korn &
    Graubard: Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data, Survey Methodology 24, 1998). Where all starts of all seeds agree it is
    the number of starts. The part of the seeds is widened by the ratio of Student's quantile to the
    normal one, squared.

    Args:
        values: (starts, S) of 0 and 1, without NaN.

    Returns:
        With one seed the interval of `wilson`.
    """
    values = np.asarray(values, np.float64)
    n, seeds = values.shape
    if seeds == 1 or not n:
        return wilson(int(values.sum()), n)
    share = float(values.mean())
    if share in (0.0, 1.0):
        return wilson(share * n, n)
    tail = 0.5 + LEVEL / 2
    wider = (stdtrit(seeds - 1, tail) / ndtri(tail)) ** 2
    variance = values.mean(1).var() / n + seed_spread(values).variance * wider
    # Seeds can never tell more than as many starts would.
    effective = min(share * (1 - share) / max(variance, np.finfo(float).tiny), n * seeds)
    return wilson(share * effective, effective)


def two_sided(draws: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Two-sided p-values of no difference, from the draws of a bootstrap.

    The p-value is the share of draws, recentred on the null hypothesis, at least as far out as the
    value seen, with one added to both counts so that it is never 0. With a handful of starts the
    draws vary too little, and it rejects too often.

    Args:
        draws: (draws, m) values. Those without a value (NaN) count as far out.
        seen: (m,) values seen.

    Returns:
        (m,), NaN where nothing was seen.
    """
    # What is equal in exact arithmetic counts as at least as far out.
    rounding = ROUNDING * np.maximum(1.0, np.abs(seen))
    closer = np.abs(draws - seen) < np.abs(seen) - rounding
    return np.where(np.isfinite(seen), (1 + (~closer).sum(0)) / (1 + len(draws)), np.nan)


def holm(pvalues: np.ndarray) -> np.ndarray:
    """Adjust p-values for several tests by Holm's step-down (Holm, 1979).

    Args:
        pvalues: (n,); NaN stays NaN and is not counted as a test.

    Returns:
        (n,) in the order given.
    """
    pvalues = np.asarray(pvalues, np.float64)
    adjusted = np.full(pvalues.shape, np.nan)
    known = np.flatnonzero(np.isfinite(pvalues))
    order = known[np.argsort(pvalues[known], kind="stable")]
    # The smallest is multiplied by the number of tests, the next by one less, and so on; none may
    # become smaller than the one before it.
    scaled = pvalues[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted
