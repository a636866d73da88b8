"""Measures time and error of a streamed PCA, against IncrementalPCA of scikit-learn.

Both receive the same blocks of random codes in the same order, with the batch size of the published
GANSpace, max(2000, 3 x components). The time to draw the blocks is not counted. The codes have a
mean that is not zero, and variances that fall like 1/k: fast at first, then slowly, as in W.

    exact         (ours) sums of the codes and of their outer products, then eigenvectors
    incremental   sklearn.decomposition.IncrementalPCA, which the published GANSpace uses

The columns are: seconds of wall time; CPU seconds; the largest relative error of the standard
deviation of a component; and the overlap between the subspace of all components and the true one (1
if they are equal). The errors are measured against the covariance from a second pass over the
blocks, in float64. The last line gives the time of incremental divided by that of exact.

    python benchmarks/pca.py                                      # about 20 CPU seconds
    python benchmarks/pca.py --n 4000 --dim 64 --components 8     # a short run
    python benchmarks/pca.py --n 1000000                          # the size of GANSpace

docs/methods.md reports the result for --n 1000000. It guards methods/ganspace/pca.py.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
from sklearn.decomposition import IncrementalPCA
from threadpoolctl import threadpool_limits

from editbench.methods.ganspace.pca import RunningMoments


class Stream:
    """Blocks of correlated normal codes, which are the same in every pass."""

    def __init__(self, n: int, dim: int, batch: int) -> None:
        """Choose mean, variances and axes of the codes.

        Args:
            n: number of codes.
            dim: channels of a code.
            batch: codes in a block.
        """
        rng = np.random.default_rng(0)
        self.n = n
        self.dim = dim
        self.batch = batch
        self.mean = rng.normal(size=dim).astype(np.float32)
        # The variances fall like 1 / k and have a long slow tail, as those of W.
        std = 3.0 / np.sqrt(1 + np.arange(dim))
        rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
        self.mix = (std[:, None] * rotation).astype(np.float32)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Draw the blocks (batch, dim), each from its own seed."""
        for i, first in enumerate(range(0, self.n, self.batch)):
            rows = min(self.batch, self.n - first)
            rng = np.random.default_rng((1, i))
            z = rng.standard_normal((rows, self.dim), dtype=np.float32)
            yield z @ self.mix + self.mean


def clocks() -> np.ndarray:
    """Wall time and CPU time of this process so far, seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def two_pass_covariance(stream: Stream) -> np.ndarray:
    """Compute the covariance (dim, dim) by its definition: first the mean, then the products."""
    mean = sum(block.sum(0, dtype=np.float64) for block in stream) / stream.n
    scatter = np.zeros((stream.dim, stream.dim))
    for block in stream:
        centred = block - mean
        scatter += centred.T @ centred
    return scatter / (stream.n - 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--n",
        type=int,
        default=100_000,
        help="codes, rounded down to whole batches (default: %(default)s)",
    )
    parser.add_argument(
        "--dim", type=int, default=512, help="channels of a code (default: %(default)s)"
    )
    parser.add_argument(
        "--components", type=int, default=80, help="of the PCA (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    args = parser.parse_args()
    k = args.components
    # The batch size of the published GANSpace.
    batch = max(2000, 3 * k)
    # Whole batches only, but at least one.
    n = max(args.n - args.n % batch, batch)
    stream = Stream(n, args.dim, batch)
    moments = RunningMoments(args.dim)
    incremental = IncrementalPCA(k)
    # Wall time and CPU time of each part, seconds.
    seconds = {name: np.zeros(2) for name in ("blocks", "exact", "incremental")}
    with threadpool_limits(args.threads):
        before = clocks()
        # The two alternate, so that changes of the machine's speed affect both.
        for block in stream:
            seconds["blocks"] += clocks() - before
            before = clocks()
            moments.add(block)
            seconds["exact"] += clocks() - before
            before = clocks()
            incremental.partial_fit(block)
            seconds["incremental"] += clocks() - before
            before = clocks()
        before = clocks()
        exact = moments.components(k)
        seconds["exact"] += clocks() - before
        values, columns = np.linalg.eigh(two_pass_covariance(stream))
    # `eigh` returns the smallest eigenvalue first.
    true_std = np.sqrt(values[::-1][:k])
    true_rows = columns.T[::-1][:k]

    print(f"{n} codes x {args.dim} channels, {k} components, {args.threads} thread(s)")
    print(f"drawing the blocks: {seconds['blocks'][0]:.1f} s of wall time, not counted below")
    print(
        f"{'implementation':14} {'wall s':>8} {'CPU s':>8} {'largest error of std':>21} "
        f"{'subspace overlap':>17}"
    )
    found = {
        "exact": (exact.stdev, exact.rows),
        "incremental": (np.sqrt(incremental.explained_variance_), incremental.components_),
    }
    for name, (std, rows) in found.items():
        wall, cpu = seconds[name]
        # Subspaces are compared, because vectors of close eigenvalues may rotate into each other.
        overlap = np.square(rows @ true_rows.T).sum() / k
        error = np.abs(std / true_std - 1).max()
        print(f"{name:14} {wall:8.2f} {cpu:8.2f} {error:21.1e} {overlap:17.6f}")
    wall, cpu = seconds["incremental"] / seconds["exact"]
    print(f"incremental / exact: {wall:.1f} in wall time, {cpu:.1f} in CPU time")


if __name__ == "__main__":
    main()
