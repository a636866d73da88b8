"""Spearman's rank correlation for few pairs: average ranks, an exact permutation test, an interval."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, permutations

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata
from scipy.stats import t as student

from editbench.stats.intervals import LEVEL

EXACT = 10  # pairs up to which all permutations are counted
CHUNK = 200_000
NAN = float("nan")


@dataclass(frozen=True)
class Spearman:
    """rho, its interval, the two-sided p, n pairs, and whether p is exact. NaN where there are fewer than three pairs,
    or one side is constant; no interval below four pairs, nor where rho is -1 or 1."""

    rho: float
    low: float
    high: float
    p: float
    n: int
    exact: bool


def spearman(a: np.ndarray, b: np.ndarray, level: float = LEVEL) -> Spearman:
    """Rank correlation of pairs, those with a NaN left out; ties take their average rank.

    p: up to EXACT pairs the share of all pairings of the two sides whose |rho| is at least that seen; beyond that by
    Student's t with n - 2 degrees of freedom. Interval: Fisher's z with the standard error of Bonett and Wright (2000),
    sqrt((1 + rho^2 / 2) / (n - 3)); none where rho is -1 or 1, where it would be a point, which no few pairs carry.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    x, y = (centred(rankdata(side[both])) for side in (a, b))
    n = int(both.sum())
    if n < 3 or not x.any() or not y.any():
        return Spearman(NAN, NAN, NAN, NAN, n, n <= EXACT)
    rho = float(x @ y)
    rho = math.copysign(1.0, rho) if abs(rho) >= 1 - 1e-12 else rho  # rounding would leave 0.999...
    if n <= EXACT:
        p = exact_p(x, y)
    else:
        p = float(2 * student.sf(abs(rho) * math.sqrt((n - 2) / max(1 - rho**2, 1e-300)), n - 2))
    if n < 4 or abs(rho) == 1:
        return Spearman(rho, NAN, NAN, p, n, n <= EXACT)
    half = float(ndtri(0.5 + level / 2)) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    z = math.atanh(rho)
    return Spearman(rho, math.tanh(z - half), math.tanh(z + half), p, n, n <= EXACT)


def centred(ranks: np.ndarray) -> np.ndarray:
    """Ranks less their mean, at unit length; zeros where all are equal."""
    ranks = ranks - ranks.mean()
    length = np.linalg.norm(ranks)
    return ranks / length if length > 0 else ranks


def exact_p(x: np.ndarray, y: np.ndarray) -> float:
    """Share of all n! orders of y whose |x . y| is at least that of the order given."""
    seen, n = abs(float(x @ y)) - 1e-9, len(x)
    hits = sum(int((np.abs(y[orders] @ x) >= seen).sum()) for orders in _orders(n))
    return hits / math.factorial(n)


def _orders(n: int) -> Iterator[np.ndarray]:
    every = permutations(range(n))
    while part := list(islice(every, CHUNK)):
        yield (
            np.fromiter(chain.from_iterable(part), np.int8, len(part) * n)
            .reshape(-1, n)
            .astype(np.int64)
        )
