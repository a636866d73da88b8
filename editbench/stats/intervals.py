"""Intervals and paired tests. They are deterministic and independent of the order of the samples.

All intervals are two-sided, with level 0.95. Resampling is over starts (clusters), never over the
steps of a start, which are not independent.

Several seeds of one method walk from the same starts. Starts and seeds are therefore crossed
factors, and a mean over both varies with either. `seed_spread` estimates the part of its variance
that is due to the seeds, by a two-way analysis of variance with random effects (Searle, Casella &
McCulloch: Variance Components, 1992, ch. 4), and `seed_draws` adds this part to bootstrap draws
over starts. It is drawn from Student's t with S - 1 degrees of freedom. Resampling the S seeds
themselves would underestimate the uncertainty of, for example, three seeds (the ends of the
interval would be the smallest and the largest of them). A mean over attributes also has the
covariances between attributes of `shared_seed_spread`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, ndtri, stdtrit

from editbench.base import seeding

LEVEL = 0.95
DRAWS = 2000
CHUNK = 250_000  # indices drawn at once, so that memory does not grow with draws * samples
LEAST_SEEDS = 3  # for a covariance between attributes
ROUNDING = 1e-12  # smaller differences, relative to 1, are rounding errors

Interval = tuple[float, float]
NO_INTERVAL: Interval = (float("nan"), float("nan"))


def wilson(successes: float, n: float, level: float = LEVEL) -> Interval:
    """Wilson score interval of a proportion (Wilson, 1927, without continuity correction).

    Args:
        successes: from 0 to n. It need not be whole: see `crossed_share`.
        n: number of trials, or an effective number.
        level: coverage of the interval, between 0 and 1.

    Returns:
        Lower and upper end in [0, 1]; NaN if n is 0.
    """
    if n == 0:
        return NO_INTERVAL
    # Two-sided: half of 1 - level lies beyond each end.
    z = ndtri(0.5 + level / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = float((centre - half) / (1 + z * z / n))
    high = float((centre + half) / (1 + z * z / n))
    # These ends are exactly 0 and 1 in theory; rounding would leave 1e-17.
    if successes == 0:
        low = 0.0
    if successes == n:
        high = 1.0
    return low, high


def resampled_sums(rows: np.ndarray, draws: int = DRAWS, stream: str = "bootstrap") -> np.ndarray:
    """Sums of rows drawn with replacement, n in each draw.

    Args:
        rows: (n, m), in a fixed order (sorted by start), on which the result depends.
        draws: number of sums.
        stream: name of the random stream, together with n; different uses need different names.

    Returns:
        (draws, m) float64.
    """
    rows = np.asarray(rows, np.float64)
    n = len(rows)
    rng = seeding.rng(0, stream, len(rows))
    # At least one draw at a time, even if its n indices alone exceed CHUNK.
    size = max(1, CHUNK // max(n, 1))
    sums = []
    for begin in range(0, draws, size):
        count = min(size, draws - begin)
        # One bincount for many draws: draw k uses the bins k * n to k * n + n - 1.
        index = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        weights = np.bincount(index.ravel(), minlength=count * n).reshape(count, n)
        sums.append(weights.astype(np.float64) @ rows)
    return np.concatenate(sums)


def resampled_means(
    values: np.ndarray, draws: int = DRAWS, stream: str = "bootstrap"
) -> np.ndarray:
    """Means of columns over rows drawn with replacement; all columns share the drawn rows.

    This is a paired bootstrap: a column may hold differences, or differences between the means of
    columns may be taken afterwards.

    Args:
        values: (n, m), NaN if a column has no value for a row. A mean is over the rows for which
            its column has values. The result depends on the order of the rows.
        draws: number of means.
        stream: name of the random stream, as for `resampled_sums`.

    Returns:
        (draws, m) float64, NaN if a draw has no value for a column.
    """
    held = np.isfinite(values)
    width = values.shape[1]
    # The number of values in each draw is resampled together with the values.
    columns = np.concatenate([np.where(held, values, 0.0), held], 1)
    sums = resampled_sums(columns, draws, stream)
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[:, :width] / sums[:, width:]


def percentiles(samples: np.ndarray) -> np.ndarray:
    """Percentile interval of bootstrap samples, ignoring NaN draws: (draws, m) -> (2, m)."""
    out = np.full((2, samples.shape[1]), np.nan)
    # nanpercentile warns about columns that are all NaN.
    some = np.isfinite(samples).any(0)
    if some.any():
        tail = 50 * (1 - LEVEL)
        known = samples[:, some]
        # Without NaN, np.percentile gives the same numbers in half the time.
        percentile = np.nanpercentile if np.isnan(known).any() else np.percentile
        out[:, some] = percentile(known, [tail, 100 - tail], axis=0)
    return out


def bootstrap_mean(values: np.ndarray, draws: int = DRAWS) -> Interval:
    """Percentile interval of a mean; the order of the values does not matter.

    It is too narrow for few values, so consider the count too.

    Args:
        values: (n,), one value per start; NaN values are left out.
        draws: number of bootstrap draws.

    Returns:
        Lower and upper end; NaN with fewer than two values, since a single one has no interval.
    """
    # A draw picks values by position, so they are sorted to be independent of the given order.
    values = np.sort(np.asarray(values, np.float64))
    values = values[np.isfinite(values)]
    # Resampling a single value says nothing about other values.
    if len(values) < 2:
        return NO_INTERVAL
    low, high = percentiles(resampled_sums(values[:, None], draws) / len(values))[:, 0]
    return float(low), float(high)


def bootstrap_ratios(
    numerators: np.ndarray, denominators: np.ndarray, draws: int = DRAWS
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals of sum(numerator) / sum(denominator); whole clusters are resampled.

    Args:
        numerators: (n, m), one row per cluster, sorted by cluster.
        denominators: (n, m) likewise.
        draws: number of bootstrap draws.

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
    # Resampling a single cluster says nothing about other clusters.
    ratios[:, few] = np.nan
    low, high = percentiles(ratios)
    return low, high


def block_interval(value: float, blocks: np.ndarray) -> Interval:
    """Interval of an estimate from one value per block of samples, with Student's t.

    The values are the blocks' own estimates, if the estimate is their mean, or else the jackknife's
    pseudo-values B value - (B - 1) value_without_block (Tukey, 1958). A bootstrap over so few
    blocks would give intervals that are too narrow, and wrong ones for a statistic of ranks.

    Args:
        value: the estimate.
        blocks: (B,) one value per block.

    Returns:
        Lower and upper end; NO_INTERVAL if there is one block or a block without a value.
    """
    # A single block has no spread.
    if len(blocks) < 2 or not np.isfinite(blocks).all():
        return NO_INTERVAL
    quantile = stdtrit(len(blocks) - 1, 0.5 + LEVEL / 2)
    half = float(quantile * blocks.std(ddof=1) / np.sqrt(len(blocks)))
    return value - half, value + half


def median_interval(values: np.ndarray) -> Interval:
    """Distribution-free interval of a median, from order statistics.

    It covers at least LEVEL if n allows that; with too few values (n < 6) it is the whole range of
    the values. A single value has no interval.
    """
    values = np.sort(np.asarray(values, np.float64))
    values = values[np.isfinite(values)]
    n = len(values)
    if n < 2:
        return NO_INTERVAL
    # The number of values below the median is binomial (n, 1/2).
    # With k its quantile at the tail probability, P(fewer than k) is below the tail probability, so
    # the interval between the k-th values from both ends covers enough. The index is k - 1.
    # `scipy.stats.binom` has the quantile too, but takes a second to import.
    up_to = bdtr(np.arange(n + 1), n, 0.5)  # P(at most 0, 1, ..., n)
    quantile = int(np.searchsorted(up_to, (1 - LEVEL) / 2))
    rank = max(quantile - 1, 0)
    return float(values[rank]), float(values[n - 1 - rank])


@dataclass(frozen=True)
class SeedSpread:
    """Contribution of the choice of seeds to the variance of a mean.

    Args:
        variance: of the mean, in the square of its unit; 0 for a single seed, for which it is
            unknown.
        seeds: S, the number of seeds.
    """

    variance: float = 0.0
    seeds: int = 1


def seed_spread(values: np.ndarray) -> SeedSpread:
    """Variance that the choice of seeds adds to a mean over starts and seeds.

    It is max(0, MS_seeds - MS_residual) / (n S), with the two mean squares of the two-way layout.
    It is 0 if the seeds are equal, or differ at single starts by no more than chance.

    Args:
        values: (starts, S), NaN if a seed has no value for a start. Only starts with values for all
            seeds are used; with fewer than two such starts, the variance of the seeds' means is
            used instead.
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


def shared_seed_spread(means: np.ndarray) -> SeedSpread:
    """Variance that effects of a seed on several means together add to the mean of these.

    A seed may decide something for all attributes of a method, such as its examples or the
    directions of its search. Its effects on the attributes are then correlated, and the variances
    of `seed_spread`, one for each attribute, miss the covariances. These are estimated by those of
    the seeds' means, since the starts of different attributes are different ones.

    Args:
        means: (S, K) mean over starts of every seed and attribute, without NaN.

    Returns:
        The sum of the covariances of all pairs of attributes, as a variance of the mean over
        attributes and seeds; 0 if the sum is negative, as it is by chance without common effects,
        and with fewer than LEAST_SEEDS, whose covariances say next to nothing.
    """
    means = np.asarray(means, np.float64)
    seeds, attributes = means.shape
    if seeds < LEAST_SEEDS or attributes < 2:
        return SeedSpread(0.0, seeds)
    covariance = np.cov(means, rowvar=False)
    between = float(covariance.sum() - np.trace(covariance))
    return SeedSpread(max(0.0, between) / (attributes**2 * seeds), seeds)


def seed_draws(spread: SeedSpread, draws: int, *stream: object) -> np.ndarray:
    """Deviations of a mean due to its seeds: (draws,), Student's t with the scale of the spread.

    They are the quantiles of the distribution in random order, so that the tails have no noise.

    Args:
        spread: of the mean.
        draws: number of deviations.
        stream: names of the random stream; different means need different names, to be independent.
    """
    if spread.variance <= 0 or spread.seeds < 2:
        return np.zeros(draws)
    places = (seeding.rng(0, "seeds", *stream).permutation(draws) + 0.5) / draws
    return np.sqrt(spread.variance) * stdtrit(spread.seeds - 1, places)


def crossed_means(values: np.ndarray, draws: int = DRAWS) -> Interval:
    """Interval of a mean over starts and seeds: a bootstrap over starts plus the seeds' deviations.

    Args:
        values: (starts, S), NaN if a seed has no value for a start. Every start has the same
            weight, however many seeds have a value for it.

    Returns:
        With one seed the interval of `bootstrap_mean`; a single start has no interval. If no value
        is negative, the lower end is at least 0, since the long tails of Student's t with few seeds
        would otherwise reach impossible means. If every value is 0 or 1, the mean is a share and
        the upper end is at most 1.
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
    """The lower end of a mean's interval, raised to 0 if no value is negative.

    Args:
        low: the lower end.
        values: those whose mean it is, of any shape, at least one of them not NaN; NaN is ignored.
    """
    return max(low, 0.0) if np.nanmin(values) >= 0 else low


def crossed_share(values: np.ndarray) -> Interval:
    """Interval of a share over starts and seeds: Wilson's, with the effective number of starts.

    With V the variance of the share over starts and seeds, this number is p (1 - p) / V (Korn &
    Graubard: Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data, Survey Methodology 24, 1998). If all starts of all seeds agree, it
    is the number of starts. The seeds' part of V is multiplied by the squared ratio of Student's
    quantile to the normal quantile.

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
    # The effective number cannot exceed the number of walks.
    effective = min(share * (1 - share) / max(variance, np.finfo(float).tiny), n * seeds)
    return wilson(share * effective, effective)


def two_sided(draws: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Two-sided p-values for the null hypothesis of no difference, from bootstrap draws.

    The p-value is the share of draws, recentred on the null hypothesis, that are at least as
    extreme as the observed value, with one added to both counts so that it is never 0. With only a
    handful of starts the draws vary too little, and the test rejects too often.

    Args:
        draws: (draws, m) values. Draws without a value (NaN) count as extreme.
        seen: (m,) observed values.

    Returns:
        (m,), NaN if there is no observed value.
    """
    # Values that are equal up to rounding count as equally extreme.
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
    # The smallest is multiplied by the number of tests, the next by one less, and so on; a value
    # may not be smaller than the previous one.
    scaled = pvalues[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted
