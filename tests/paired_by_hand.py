"""The paired bootstrap of one pair, by its definition: the oracle of the ones that the product has."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from editbench.base import seeding


class PairedDifference(NamedTuple):
    """Mean of a - b over the n starts of both, its 95 % interval, and a two-sided p-value."""

    n: int
    difference: float
    low: float
    high: float
    p: float


def paired_difference(a: pd.Series, b: pd.Series, draws: int = 2000) -> PairedDifference:
    """Of one value a start, indexed by start, with the draws of the stream 'paired'."""
    starts = a.index.intersection(b.index).sort_values()
    gaps = (a[starts] - b[starts]).to_numpy(np.float64)
    n = len(gaps)
    picked = seeding.rng(0, "paired", n).integers(0, n, (draws, n))
    means = gaps[picked].mean(1)
    mean = gaps.mean()
    low, high = np.percentile(means, [2.5, 97.5])
    # Draws that equal the difference but for rounding lie as far out as it does.
    far = np.abs(means - mean) >= abs(mean) - 1e-12
    return PairedDifference(n, mean, low, high, (1 + far.sum()) / (1 + draws))
