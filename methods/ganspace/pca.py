"""Principal components of a stream of samples, in one pass and with constant memory.

The covariance of d channels is d x d for any number of samples, so for latents with a few hundred
channels the exact decomposition is one small eigenproblem. The incremental approximation of the
published GANSpace is used for activations whose covariance would not fit into memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.linalg.blas import dsyrk, ssyrk

from editbench.base.errors import EditbenchError, NonFinite

# Samples per matrix product: few enough for the CPU cache and for sums in single precision
CHUNK = 1024
# Channels. At this number the covariance takes 128 MiB and the eigenproblem a minute; above it the
# approximation is used.
EXACT_LIMIT = 4096
# Relative to the largest variance. Smaller variances are rounding errors of single precision or
# give edits too small to be seen.
FLOOR = 1e-6


@dataclass(frozen=True)
class Components:
    """The leading components of n samples, in float64.

    Args:
        mean: (d,) of the samples.
        rows: (k, d) orthonormal; in each the channel of the largest magnitude is positive.
        stdev: (k,) standard deviation of the projections (with n - 1), in descending order.
        ratio: (k,) share of the total variance.
        samples: n.
        exact: False for the incremental approximation.
    """

    mean: np.ndarray
    rows: np.ndarray
    stdev: np.ndarray
    ratio: np.ndarray
    samples: int
    exact: bool

    def __len__(self) -> int:
        return len(self.rows)


class RunningMoments:
    """Count, mean and covariance of all samples seen, for any order and split.

    Sums are kept in float64 and relative to a provisional mean, that of the first block, so that a
    mean far from zero costs no precision. Within a chunk the products have the precision of the
    samples. For float32 this is twice as fast, and the errors are of the size of the samples' own
    rounding.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.dim = dim
        self.eps = 0.0  # relative rounding of the coarsest samples
        self.shift: np.ndarray | None = None
        self.sum = np.zeros(dim)  # of the samples minus shift
        # Sum of outer products of the samples minus shift; only the upper triangle is used.
        self.scatter = np.zeros((dim, dim), order="F")

    def add(self, x: np.ndarray) -> None:
        """Add samples (n, d), float32 or float64.

        Raises:
            NonFinite: they hold NaN or infinity.
        """
        if not len(x):
            return
        if self.shift is None:
            self.shift = x.mean(0)
        buffer = np.empty((min(CHUNK, len(x)), self.dim), x.dtype)
        # BLAS's symmetric products compute only one triangle, which is half the work.
        product = ssyrk if x.dtype == np.float32 else dsyrk
        with np.errstate(invalid="ignore"):  # NaN and infinity are found in the sum
            for first in range(0, len(x), CHUNK):
                part = x[first : first + CHUNK]
                centred = np.subtract(part, self.shift, out=buffer[: len(part)])
                self.sum += centred.sum(0, dtype=np.float64)
                self.scatter += product(1.0, centred.T)
        self.count = self.count + len(x)
        self.eps = max(self.eps, float(np.finfo(x.dtype).eps))
        if not np.isfinite(self.sum).all():
            raise NonFinite(
                "samples of a principal component analysis hold NaN or infinity: "
                "check the generator"
            )

    def merge(self, other: RunningMoments) -> None:
        """Add the samples of another stream, converted to this one's provisional mean."""
        if other.shift is None:
            return
        if self.shift is None:
            self.shift = other.shift
        # sum (x - a)(x - a)^T = sum (x - b + g)(x - b + g)^T with the gap g = b - a.
        gap = other.shift.astype(np.float64) - self.shift
        cross = np.outer(other.sum, gap)
        self.scatter += other.scatter + cross + cross.T + other.count * np.outer(gap, gap)
        self.sum += other.sum + other.count * gap
        self.count = self.count + other.count
        self.eps = max(self.eps, other.eps)

    @property
    def mean(self) -> np.ndarray:
        """Mean (d,); zero before the first sample."""
        return self.sum if self.shift is None else self.shift + self.sum / self.count

    def covariance(self) -> np.ndarray:
        """Unbiased covariance (d, d).

        Raises:
            EditbenchError: there are fewer than two samples.
        """
        if self.count < 2:
            raise EditbenchError(
                f"a covariance needs at least 2 samples, got {self.count}: raise method.samples"
            )
        return self._centred() / (self.count - 1)

    def components(self, k: int) -> Components:
        """At most k leading components, without those with a variance below FLOOR or rounding."""
        covariance = self.covariance()
        k = min(k, self.dim)
        total = float(np.trace(covariance))
        variance, columns = eigh(
            covariance, subset_by_index=(self.dim - k, self.dim - 1), overwrite_a=True
        )
        # eigh returns ascending eigenvalues, with the eigenvectors in columns.
        variance = variance[::-1]
        rows = columns.T[::-1]
        kept = variance > max(FLOOR * variance[0], (self.eps * np.linalg.norm(self.mean)) ** 2)
        return _components(self.mean, rows[kept], variance[kept], total, self.count, True)

    def _centred(self) -> np.ndarray:
        # Completes the matrix from its upper triangle, then converts from the shift to the mean.
        upper = np.triu(self.scatter)
        return upper + np.triu(upper, 1).T - np.outer(self.sum, self.sum) / self.count


class Incremental:
    """scikit-learn's IncrementalPCA with the same two methods.

    Batches have the published size, max(2000, 3 k). This is an approximation: the part of a batch
    outside the k leading components is lost. The result depends on the order of the samples but not
    on how they are split into calls of `add`. At most two batches are held in memory.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.batch = max(2000, 3 * k)
        self.count = 0
        # Imported here, since the import takes a second and most fits use the exact components.
        from sklearn.decomposition import IncrementalPCA

        self.model = IncrementalPCA(k)
        self.pending: list[np.ndarray] = []

    def add(self, x: np.ndarray) -> None:
        """Add samples (n, d).

        Raises:
            NonFinite: they hold NaN or infinity.
        """
        if not np.isfinite(x).all():
            raise NonFinite(
                "samples of a principal component analysis hold NaN or infinity: "
                "check the generator"
            )
        for first in range(0, len(x), self.batch):
            self.pending.append(x[first : first + self.batch])
            if (
                sum(map(len, self.pending)) >= self.batch + self.k
            ):  # what stays is enough for a batch of its own
                rows = np.concatenate(self.pending)
                self.pending = [rows[self.batch :]]
                self._fit(rows[: self.batch])

    def components(self, k: int) -> Components:
        """At most k leading components, after the last sample was added."""
        rows = np.concatenate(self.pending or [np.zeros((0, 0))])
        self.pending = []
        if len(rows):
            self._fit(rows)
        variance = self.model.explained_variance_.astype(np.float64)[:k]
        kept = variance > FLOOR * variance[0]
        # scikit-learn's var_ divides by n, the eigenvalues here by n - 1.
        total = float(self.model.var_.sum()) * self.count / (self.count - 1)
        return _components(
            self.model.mean_.astype(np.float64),
            self.model.components_[:k][kept].astype(np.float64),
            variance[kept],
            total,
            self.count,
            False,
        )

    def _fit(self, rows: np.ndarray) -> None:
        if len(rows) < self.k:
            raise EditbenchError(
                f"{len(rows)} samples are too few for {self.k} components of {rows.shape[1]} "
                "channels: raise method.samples"
            )
        self.model.partial_fit(rows)
        self.count += len(rows)


def estimator(dim: int, k: int) -> RunningMoments | Incremental:
    """Choose the exact estimator up to EXACT_LIMIT channels, above it the approximation.

    The approximation is that of the published GANSpace (Härkönen et al. 2020).

    Args:
        dim: number of channels of a sample.
        k: number of components; only the approximation must know it in advance.
    """
    return RunningMoments(dim) if dim <= EXACT_LIMIT else Incremental(k)


def _components(
    mean: np.ndarray,
    rows: np.ndarray,
    variance: np.ndarray,
    total: float,
    samples: int,
    exact: bool,
) -> Components:
    """Build Components with a fixed sign: the channel of largest magnitude in a row is positive."""
    largest = rows[:, :1]
    if len(rows):
        largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)
    return Components(
        mean,
        np.ascontiguousarray(rows * np.sign(largest)),
        np.sqrt(variance),
        variance / total,
        samples,
        exact,
    )
