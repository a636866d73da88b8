"""Estimates with a value for each block of samples: jackknife of a Fréchet distance, mean of kernel distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from editbench.stats.frechet import gaussian_distance
from editbench.stats.intervals import LEVEL, NO_INTERVAL, Interval
from editbench.stats.moments import covariance

NAN = float("nan")


@dataclass(frozen=True)
class Estimate:
    """value (T,); blocks (T, B): one value a block whose mean has the estimate's standard error (pseudo-values of a
    jackknife, or the blocks' own); floor: see editbench.metrics.frechet_distance.metric."""

    value: np.ndarray
    blocks: np.ndarray
    floor: float = NAN

    def interval(self, place: int) -> Interval:
        return self._around(float(self.value[place]), self.blocks[place])

    def difference(self, a: int, b: int) -> Interval:
        """Of value[a] - value[b]: the blocks are the same samples, so it is paired."""
        return self._around(float(self.value[a] - self.value[b]), self.blocks[a] - self.blocks[b])

    def _around(self, value: float, blocks: np.ndarray) -> Interval:
        if len(blocks) < 2 or not np.isfinite(blocks).all():
            return NO_INTERVAL
        half = (
            student.ppf(0.5 + LEVEL / 2, len(blocks) - 1)
            * blocks.std(ddof=1)
            / np.sqrt(len(blocks))
        )
        return value - float(half), value + float(half)


def jackknife(arrays: dict[str, np.ndarray], whole: np.ndarray) -> Estimate:
    """Fréchet distance of every strength to the reference, with pseudo-values of leaving out one block.

    Args:
        arrays: of editbench.metrics.frechet_distance.observation.FrechetDistanceObservation.
        whole: (T,) strengths that have a number.
    """
    real = covariance(
        float(arrays["reference_count"][0]), arrays["reference_sum"], arrays["reference_outer"]
    )
    count, total, outer = arrays["count"], arrays["sum"], arrays["outer"]
    sets, blocks = count.shape
    value, pseudo = np.full(sets, NAN), np.full((sets, blocks), NAN)
    for t in np.flatnonzero(whole):
        every = count[t].sum(), total[t].sum(0), outer[t].sum(0)
        value[t] = gaussian_distance(*covariance(float(every[0]), *every[1:]), *real)
        for b in range(blocks if blocks > 1 else 0):
            rest = covariance(
                float(every[0] - count[t, b]), every[1] - total[t, b], every[2] - outer[t, b]
            )
            pseudo[t, b] = blocks * value[t] - (blocks - 1) * gaussian_distance(*rest, *real)
    floor = NAN
    if "floor_sum" in arrays:
        other = covariance(
            float(arrays["floor_count"][0]), arrays["floor_sum"], arrays["floor_outer"]
        )
        floor = gaussian_distance(*other, *real)
    return Estimate(value, pseudo, floor)


def over_blocks(values: np.ndarray, whole: np.ndarray) -> Estimate:
    """Mean over blocks of the kernel distance: (T, B)."""
    blocks = np.where(whole[:, None], values, NAN)
    return Estimate(blocks.mean(1), blocks)
