"""Estimates by blocks of samples: jackknife of a Fréchet distance, mean of kernel distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from editbench.metrics.frechet_distance.matching import ClassReference
from editbench.stats.frechet import gaussian_distance
from editbench.stats.intervals import Interval, block_interval
from editbench.stats.moments import covariance

NAN = float("nan")


@dataclass(frozen=True)
class Estimate:
    """A number at each strength, with its spread over blocks.

    Attributes:
        value: (T,) the number at each strength; NaN if there is none.
        blocks: (T, B) one value per block, from which the standard error is computed: jackknife
            pseudo-values, or the blocks' own values.
        floor: distance of other real images from the reference; NaN if there are none.
    """

    value: np.ndarray
    blocks: np.ndarray
    floor: float = NAN

    def interval(self, place: int) -> Interval:
        """95 % interval of value[place]."""
        return block_interval(float(self.value[place]), self.blocks[place])

    def difference(self, a: int, b: int) -> Interval:
        """95 % interval of value[a] - value[b], paired, since the blocks have the same samples.

        Args:
            a: place of the first strength, 0 to T - 1.
            b: place of the second.

        Returns:
            Lower and upper end; NO_INTERVAL if there is one block or a block without a value.
        """
        gap = float(self.value[a] - self.value[b])
        return block_interval(gap, self.blocks[a] - self.blocks[b])


def jackknife(
    arrays: dict[str, np.ndarray], whole: np.ndarray, same_share: ClassReference | None = None
) -> Estimate:
    """Fréchet distance to the reference at every strength, with jackknife pseudo-values of leaving
    out one block.

    Args:
        arrays: count (T, B), sum (T, B, d), outer (T, B, d (d + 1) / 2) of the edited images, and
            the same for reference and floor without T and B; with `same_share` also label
            (T, B, K), the judge's classes of the edited images; see the observation.
        whole: (T,) bool, strengths that have a number.
        same_share: the reference by class, with which the remaining blocks are compared to real
            images with their own share of the attribute; None uses the reference unchanged.
    """
    real = covariance(
        float(arrays["reference_count"][0]), arrays["reference_sum"], arrays["reference_outer"]
    )
    count = arrays["count"]
    total = arrays["sum"]
    outer = arrays["outer"]
    sets, blocks = count.shape
    value = np.full(sets, NAN)
    pseudo = np.full((sets, blocks), NAN)

    def distance(t: int, chosen: np.ndarray) -> float:
        """Distance of the images of some blocks, (B,) bool, at one strength."""
        other = real
        if same_share is not None:
            other = same_share.at(arrays["label"][t, chosen].sum(0))[:2]
        found = covariance(
            float(count[t, chosen].sum()), total[t, chosen].sum(0), outer[t, chosen].sum(0)
        )
        # The reference has no images of a class that is needed.
        if not np.isfinite(other[0]).all():
            return NAN
        return gaussian_distance(*found, *other)

    for t in map(int, np.flatnonzero(whole)):
        value[t] = distance(t, np.ones(blocks, bool))
        if blocks < 2:
            continue
        for b in range(blocks):
            # Efron & Stein, 1981. Moments are additive, so leaving out a block costs only a sum.
            left = distance(t, np.arange(blocks) != b)
            pseudo[t, b] = blocks * value[t] - (blocks - 1) * left
    floor = NAN
    if "floor_sum" in arrays:
        other = covariance(
            float(arrays["floor_count"][0]), arrays["floor_sum"], arrays["floor_outer"]
        )
        floor = gaussian_distance(*other, *real)
    return Estimate(value, pseudo, floor)


def over_blocks(values: np.ndarray, whole: np.ndarray) -> Estimate:
    """Mean of the kernel distance over blocks.

    Args:
        values: (T, B), NaN for a block without a value.
        whole: (T,) bool, strengths that have a number.
    """
    blocks = np.where(whole[:, None], values, NAN)
    return Estimate(blocks.mean(1), blocks)
