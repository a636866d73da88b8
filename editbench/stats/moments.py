"""Statistics of features that add up: moments and kernel distances by blocks of samples, in float64.

Sample i of n belongs to block i * B // n, whatever the batch. Blocks give the Fréchet distance a jackknife and the
kernel distance its mean and spread; the moments of all samples are their sum. Memory depends on B and the dimension d,
not on n.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

DEGREE = 3  # of the polynomial kernel (x.y / d + 1)^3 of Binkowski et al. 2018


def block_ends(n: int, blocks: int) -> np.ndarray:
    """First sample of every block, and n: (B + 1,)."""
    return -(-np.arange(blocks + 1) * n // blocks)


class Moments:
    """count (B,), sum (B, d), outer (B, d (d + 1) / 2): the lower triangle of sum x x^T."""

    def __init__(self, n: int, blocks: int, dim: int) -> None:
        self.ends, self.triangle = block_ends(n, blocks), np.tril_indices(dim)
        self.count = np.zeros(blocks, np.int64)
        self.sum = np.zeros((blocks, dim))
        self.outer = np.zeros((blocks, dim * (dim + 1) // 2))

    def add(self, features: np.ndarray, first: int) -> None:
        """Features (b, d) of samples first..first + b - 1; rows that are not finite are left out."""
        for block, rows in in_blocks(self.ends, first, len(features)):
            x = np.asarray(features[rows], np.float64)
            x = x[np.isfinite(x).all(1)]
            self.count[block] += len(x)
            self.sum[block] += x.sum(0)
            self.outer[block] += (x.T @ x)[self.triangle]


def in_blocks(ends: np.ndarray, first: int, count: int) -> Iterator[tuple[int, slice]]:
    """(block, rows of the batch) of a batch of samples first..first + count - 1."""
    for block in range(int(np.searchsorted(ends, first, "right")) - 1, len(ends) - 1):
        begin, stop = (
            max(int(ends[block]), first) - first,
            min(int(ends[block + 1]), first + count) - first,
        )
        if begin >= count:
            return
        if stop > begin:
            yield block, slice(begin, stop)


def covariance(count: float, total: np.ndarray, outer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and unbiased covariance (d, d) from summed moments; NaN with fewer than two samples."""
    dim = len(total)
    if count < 2:
        return np.full(dim, np.nan), np.full((dim, dim), np.nan)
    square = np.zeros((dim, dim))
    square[np.tril_indices(dim)] = outer
    square += np.tril(square, -1).T
    mean = total / count
    return mean, (square - count * np.outer(mean, mean)) / (count - 1)


class Kernel:
    """The unbiased squared kernel distance of each block's first `size` samples to the reference, for T sets of
    features at once. Only the blocks under way are in memory.

    Args:
        reference: (K, d) features. Samples come in order, each batch for all T before the next.

    `value` (T, B): NaN until a block is whole, and where a feature is not finite.
    """

    def __init__(self, n: int, blocks: int, size: int, sets: int, reference: np.ndarray) -> None:
        self.ends, self.size, self.reference = (
            block_ends(n, blocks),
            size,
            reference.astype(np.float64),
        )
        self.within = mean_of_pairs(self.reference)
        self.value = np.full((sets, blocks), np.nan)
        self._open: dict[int, np.ndarray] = {}
        self._missing: dict[int, int] = {}

    def add(self, place: int, features: np.ndarray, first: int) -> None:
        """Features (b, d) of samples first.. of set `place`."""
        for block, rows in in_blocks(self.ends, first, len(features)):
            offset = first + rows.start - int(self.ends[block])
            taken = features[rows][: max(self.size - offset, 0)]
            if not len(taken):
                continue
            if block not in self._open:
                self._open[block] = np.empty(
                    (len(self.value), self.size, features.shape[1]), np.float32
                )
                self._missing[block] = len(self.value) * self.size
            self._open[block][place, offset : offset + len(taken)] = taken
            self._missing[block] -= len(taken)
            if not self._missing[block]:
                del self._missing[block]
                for t, each in enumerate(self._open.pop(block)):
                    self.value[t, block] = unbiased(
                        each.astype(np.float64), self.reference, self.within
                    )


def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(m, d), (n, d) -> (m, n)."""
    return (x @ y.T / x.shape[1] + 1) ** DEGREE


def mean_of_pairs(x: np.ndarray) -> float:
    """Mean of the kernel over the pairs of different rows of x (m, d)."""
    own = polynomial(x, x)
    return float((own.sum() - np.trace(own)) / (len(x) * (len(x) - 1)))


def unbiased(x: np.ndarray, y: np.ndarray, within: float | None = None) -> float:
    """Unbiased squared maximum mean discrepancy of x (m, d) and y (n, d); `within`: mean_of_pairs(y)."""
    other = mean_of_pairs(y) if within is None else within
    return float(mean_of_pairs(x) + other - 2 * polynomial(x, y).mean())
