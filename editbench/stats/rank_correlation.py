"""Rank correlations for few pairs: Spearman with an exact permutation test, and Kendall."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, permutations

import numpy as np
from scipy.special import ndtri, stdtr
from scipy.stats import rankdata

from editbench.stats.intervals import LEVEL

EXACT = 10  # up to this many pairs all permutations are counted: 10! is 3.6 million
CHUNK = 200_000  # permutations held in memory at once
NAN = float("nan")


@dataclass(frozen=True)
class Spearman:
    """A rank correlation with its uncertainty.

    Args:
        rho: the correlation; NaN with fewer than three pairs, or if one side is constant.
        low: lower end of its interval; NaN with fewer than four pairs, or if rho is -1 or 1.
        high: upper end, NaN likewise.
        p: two-sided p-value.
        n: number of pairs.
        exact: whether p is computed from all permutations.
    """

    rho: float
    low: float
    high: float
    p: float
    n: int
    exact: bool


def spearman(a: np.ndarray, b: np.ndarray) -> Spearman:
    """Correlate the ranks of pairs; ties take their average rank.

    Up to EXACT pairs, p is the share of all pairings of the two sides whose |rho| is at least the
    observed one; for more pairs it is from Student's t with n - 2 degrees of freedom. The interval
    is Fisher's z with the standard error of Bonett and Wright (2000),
    sqrt((1 + rho^2 / 2) / (n - 3)). At rho = -1 or 1 it would be a single point, which a few pairs
    do not justify, so none is given.

    Args:
        a: (n,) one side; pairs with a NaN are left out.
        b: (n,) the other side.
    """
    a = np.asarray(a, np.float64)
    b = np.asarray(b, np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    n = int(both.sum())
    nothing = Spearman(NAN, NAN, NAN, NAN, n, n <= EXACT)
    # Checked before ranking, since the mean of no ranks would warn.
    if n < 3:
        return nothing
    x = centred(rankdata(a[both]))
    y = centred(rankdata(b[both]))
    # A constant side has no order.
    if not x.any() or not y.any():
        return nothing
    # Both sides are centred and have unit length, so their dot product is the correlation.
    rho = float(x @ y)
    if abs(rho) >= 1 - 1e-12:  # rounding leaves 0.999... for equal orders
        rho = math.copysign(1.0, rho)
    if n <= EXACT:
        p = exact_p(x, y)
    else:
        # At |rho| = 1 the statistic is infinite; the bound avoids a division by 0.
        p = float(2 * stdtr(n - 2, -abs(rho) * math.sqrt((n - 2) / max(1 - rho**2, 1e-300))))
    # The standard error has n - 3 in the denominator.
    if n < 4 or abs(rho) == 1:
        return Spearman(rho, NAN, NAN, p, n, n <= EXACT)
    half = float(ndtri(0.5 + LEVEL / 2)) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    z = math.atanh(rho)
    return Spearman(rho, math.tanh(z - half), math.tanh(z + half), p, n, n <= EXACT)


def centred(ranks: np.ndarray) -> np.ndarray:
    """Ranks (n,) minus their mean, scaled to unit length; zeros if all ranks are equal."""
    ranks = ranks - ranks.mean()
    length = np.linalg.norm(ranks)
    return ranks / length if length > 0 else ranks


def exact_p(x: np.ndarray, y: np.ndarray) -> float:
    """Two-sided p-value of a permutation test, with all n! orders of y counted.

    Args:
        x: (n,) ranks from `centred`, n at most EXACT.
        y: (n,) likewise.

    Returns:
        Share of the orders whose |x . y| is at least that of the given order. The given order is
        one of them, so the share is at least 1 / n!.
    """
    seen = abs(float(x @ y)) - 1e-9  # rounding must not turn an equal order into a smaller one
    n = len(x)
    hits = 0
    for orders in _orders(n):
        # Only y is permuted: all n! pairings occur, each once.
        hits += int((np.abs(y[orders] @ x) >= seen).sum())
    return hits / math.factorial(n)


def _orders(n: int) -> Iterator[np.ndarray]:
    """All orders of n things, as index arrays (up to CHUNK, n)."""
    every = permutations(range(n))
    while part := list(islice(every, CHUNK)):
        # Exact tests have at most EXACT pairs, so a byte can hold an index.
        flat = np.fromiter(chain.from_iterable(part), np.int8, len(part) * n)
        yield flat.reshape(-1, n).astype(np.int64)


def kendall(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of many pairs of lists at once (Kendall 1945).

    Args:
        a: (draws, n) values.
        b: (draws, n) values; row k is compared with row k of a.

    Returns:
        (draws,) tau-b in [-1, 1]; NaN if one side is constant.
    """
    first, second = np.triu_indices(a.shape[1], 1)
    x = np.sign(a[:, first] - a[:, second])
    y = np.sign(b[:, first] - b[:, second])
    # A pair that is tied on one side counts for neither order, and reduces only that side's norm.
    length = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(1) / length
