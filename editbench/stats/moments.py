"""Additive statistics of features: moments and kernel distances by blocks of samples, in float64.

Sample i of n belongs to block i * B // n, for any batch size. The blocks allow a jackknife for the
Fréchet distance, and mean and spread of the kernel distance; the moments of all samples are the sum
over blocks.
Memory depends on B and the dimension d, not on n.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torchmetrics
from torch import Tensor

DEGREE = 3  # of the polynomial kernel (x.y / d + 1)^3 of Binkowski et al. 2018


def block_ends(n: int, blocks: int) -> np.ndarray:
    """First sample of every block, and n.

    Args:
        n: samples of all blocks together.
        blocks: B; sample i belongs to block i * B // n.

    Returns:
        (B + 1,) int; block b has the samples from element b up to, but without, element b + 1.
    """
    # Rounded up: the first i whose i * B // n is the number of the block.
    return -(-np.arange(blocks + 1) * n // blocks)


class Moments(torchmetrics.Metric):
    """First and second moments of features, summed by blocks of samples.

    States, float64, added up over batches and processes:
        count: (B,) samples with finite features.
        sum: (B, d).
        outer: (B, d (d + 1) / 2), the lower triangle of sum x x^T.

    `torchmetrics.image.FrechetInceptionDistance` is not used: it converts the caller's network to
    its own precision, keeps no blocks, so a jackknife is not possible, and stops at an image whose
    features are NaN. It is the oracle of the tests instead.

    Args:
        n: samples of all blocks together.
        blocks: B.
        dim: d, length of a feature.
    """

    full_state_update = False  # a batch does not depend on the batches before it
    is_differentiable = False
    higher_is_better = None  # moments are not a score

    # torchmetrics sets states as attributes; these lines declare their types.
    count: Tensor
    sum: Tensor
    outer: Tensor

    def __init__(self, n: int, blocks: int, dim: int, **options: Any) -> None:
        super().__init__(**options)
        self.ends = block_ends(n, blocks)
        # x x^T is symmetric, so one triangle is enough.
        self.triangle = np.tril_indices(dim)
        sizes = {
            "count": (blocks,),
            "sum": (blocks, dim),
            "outer": (blocks, dim * (dim + 1) // 2),
        }
        for name, size in sizes.items():
            zeros = torch.zeros(size, dtype=torch.float64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(self, features: np.ndarray | Tensor, first: int) -> None:
        """Add a batch; rows that are not finite are left out.

        Args:
            features: (b, d).
            first: position of the first row among the n samples.
        """
        batch = torch.as_tensor(features).detach().cpu().numpy()
        for block, rows in in_blocks(self.ends, first, len(batch)):
            x = np.asarray(batch[rows], np.float64)
            x = x[np.isfinite(x).all(1)]
            self.count[block] += len(x)
            self.sum[block] += torch.from_numpy(x.sum(0)).to(self.device)
            self.outer[block] += torch.from_numpy((x.T @ x)[self.triangle]).to(self.device)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean (d,) and unbiased covariance (d, d) of all samples, float64."""
        arrays = self.arrays()
        found = covariance(
            float(arrays["count"].sum()), arrays["sum"].sum(0), arrays["outer"].sum(0)
        )
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])

    def arrays(self) -> dict[str, np.ndarray]:
        """The states as arrays, for a file: count, sum, outer."""
        return {name: getattr(self, name).cpu().numpy() for name in ("count", "sum", "outer")}


def in_blocks(ends: np.ndarray, first: int, count: int) -> Iterator[tuple[int, slice]]:
    """The blocks of a batch of consecutive samples, in ascending order.

    Args:
        ends: (B + 1,) of `block_ends`.
        first: position of the batch's first sample among the n samples.
        count: samples of the batch.

    Returns:
        Pairs of the number of a block and its rows of the batch. A batch may cover parts of several
        blocks; blocks without a sample of it are left out.
    """
    for block in range(int(np.searchsorted(ends, first, "right")) - 1, len(ends) - 1):
        begin = max(int(ends[block]), first) - first
        stop = min(int(ends[block + 1]), first + count) - first
        if begin >= count:
            return
        if stop > begin:
            yield block, slice(begin, stop)


def covariance(count: float, total: np.ndarray, outer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased covariance from summed moments.

    Args:
        count: samples.
        total: (d,) their sum.
        outer: (d (d + 1) / 2,) lower triangle of their sum of x x^T, row by row, see `Moments`.

    Returns:
        Mean (d,) and covariance (d, d), float64; NaN with fewer than two samples.
    """
    dim = len(total)
    if count < 2:
        return np.full(dim, np.nan), np.full((dim, dim), np.nan)
    mean = total / count
    return mean, (_symmetric(outer, dim) - count * np.outer(mean, mean)) / (count - 1)


def mixture(
    count: np.ndarray, total: np.ndarray, outer: np.ndarray, share: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Moments of groups of samples, weighted so that the groups have given shares.

    Every sample of group g has the weight w = share_g / count_g. With weights that sum to 1, the
    covariance sum w (x - m)(x - m)^T / (1 - sum w^2) is unbiased (numpy.cov with `aweights`).

    Args:
        count: (G,) samples of each group.
        total: (G, d) their sums.
        outer: (G, d (d + 1) / 2) their second moments, see `Moments`.
        share: (G,) at least 0; scaled to sum to 1.

    Returns:
        Mean (d,), covariance (d, d) and the effective number of samples 1 / sum w^2 (Kish 1965).
        All are NaN if a group with a nonzero share is empty, or the effective number is below 2.
    """
    dim = total.shape[1]
    nothing = np.full(dim, np.nan), np.full((dim, dim), np.nan), float("nan")
    used = share > 0
    if not used.any() or (count[used] < 1).any():
        return nothing
    part = share[used] / share[used].sum()
    weight = part / count[used]  # of one sample
    effective = 1 / float(part @ weight)
    # Two samples of equal weight can give slightly less than 2 by rounding.
    if effective < 2 - 1e-9:
        return nothing
    mean = weight @ total[used]
    spread = (_symmetric(weight @ outer[used], dim) - np.outer(mean, mean)) / (1 - 1 / effective)
    return mean, spread, effective


def _symmetric(triangle: np.ndarray, dim: int) -> np.ndarray:
    """The symmetric matrix (dim, dim) with a lower triangle (dim (dim + 1) / 2,), row by row."""
    square = np.zeros((dim, dim))
    square[np.tril_indices(dim)] = triangle
    # Only the part below the diagonal is mirrored.
    return square + np.tril(square, -1).T


class KernelDistances:
    """Unbiased squared kernel distance of the blocks to a reference, for T sets of features at
    once.

    Samples are added in order, each batch for all T sets before the next batch. Only incomplete
    blocks are in memory.

    Args:
        n: total number of samples in all blocks.
        blocks: B.
        size: number of samples used from each block, its first ones.
        sets: T.
        reference: (K, d) features.

    Attributes:
        value: (T, B), NaN until a block is complete, and if a feature is not finite.
    """

    def __init__(self, n: int, blocks: int, size: int, sets: int, reference: np.ndarray) -> None:
        self.ends = block_ends(n, blocks)
        self.size = size
        self.reference = reference.astype(np.float64)
        self.within = mean_of_pairs(self.reference)
        self.value = np.full((sets, blocks), np.nan)
        # Features (T, size, d) of each incomplete block.
        self._open: dict[int, np.ndarray] = {}
        # Number of rows, over all T sets, that each of these blocks still lacks.
        self._missing: dict[int, int] = {}

    def add(self, place: int, features: np.ndarray, first: int) -> None:
        """Add a batch of consecutive samples of one set.

        A block is evaluated as soon as all sets have its samples.

        Args:
            place: number of the set, 0 to T - 1.
            features: (b, d).
            first: position of the first row among the n samples.
        """
        for block, rows in in_blocks(self.ends, first, len(features)):
            offset = first + rows.start - int(self.ends[block])
            taken = features[rows][: max(self.size - offset, 0)]
            if not len(taken):
                continue
            if block not in self._open:
                # The precision of the networks. float64 would need twice the memory until the
                # block is complete.
                self._open[block] = np.empty(
                    (len(self.value), self.size, features.shape[1]), np.float32
                )
                self._missing[block] = len(self.value) * self.size
            self._open[block][place, offset : offset + len(taken)] = taken
            self._missing[block] -= len(taken)
            if not self._missing[block]:
                del self._missing[block]
                for t, each in enumerate(self._open.pop(block)):
                    self.value[t, block] = squared_mmd(
                        each.astype(np.float64), self.reference, self.within
                    )


def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Polynomial kernel (x.y / d + 1)^3 of all pairs of rows (Binkowski et al. 2018).

    Args:
        x: (m, d) features.
        y: (n, d) features.

    Returns:
        (m, n).
    """
    return (x @ y.T / x.shape[1] + 1) ** DEGREE


def mean_of_pairs(x: np.ndarray) -> float:
    """Mean of the kernel over the pairs of different rows of x (m, d)."""
    own = polynomial(x, x)
    return float((own.sum() - np.trace(own)) / (len(x) * (len(x) - 1)))


def squared_mmd(x: np.ndarray, y: np.ndarray, within: float | None = None) -> float:
    """Unbiased squared maximum mean discrepancy of two sets; it may be negative.

    The kernel and the use for images are those of Binkowski et al. 2018.

    Args:
        x: (m, d) features, m >= 2.
        y: (n, d) features, n >= 2.
        within: `mean_of_pairs(y)`, if it is known already; None computes it.
    """
    other = mean_of_pairs(y) if within is None else within
    return float(mean_of_pairs(x) + other - 2 * polynomial(x, y).mean())
