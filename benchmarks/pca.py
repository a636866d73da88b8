"""Exact streamed PCA against scikit-learn's IncrementalPCA, on the same blocks in one run.

Blocks are drawn once an index, outside the clocks; both estimators see the same ones in the same
order, in batches of the published GANSpace, max(2000, 3 k). The spectrum is that of W: fast at
first, then a long slow tail, with a mean away from zero. Errors are against a two-pass covariance
in float64.

    python benchmarks/pca.py [--n 100000] [--dim 512] [--components 80] [--threads 1]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.decomposition import IncrementalPCA
from threadpoolctl import threadpool_limits

from editbench.methods.ganspace.pca import RunningMoments


class Stream:
    """Correlated normal samples, the same block for the same index: mean + (z * std) @ rotation."""

    def __init__(self, n: int, dim: int, batch: int) -> None:
        rng = np.random.default_rng(0)
        self.n = n
        self.dim = dim
        self.batch = batch
        self.mean = rng.normal(size=dim).astype(np.float32)
        # Variances that fall as 1 / k: a long slow tail, as W has.
        std = 3.0 / np.sqrt(1 + np.arange(dim))
        self.mix = (std[:, None] * np.linalg.qr(rng.normal(size=(dim, dim)))[0]).astype(np.float32)

    def __iter__(self):  # type: ignore[no-untyped-def]
        for i, first in enumerate(range(0, self.n, self.batch)):
            rows = min(self.batch, self.n - first)
            z = np.random.default_rng((1, i)).standard_normal((rows, self.dim), dtype=np.float32)
            yield z @ self.mix + self.mean


def clock() -> np.ndarray:
    """Seconds of the wall clock and of the process."""
    # The second does not count what other processes do.
    return np.array([time.perf_counter(), time.process_time()])


def two_pass(stream: Stream) -> np.ndarray:
    """Covariance by the definition."""
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
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--components", type=int, default=80)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    k = args.components
    batch = max(2000, 3 * args.components)
    stream = Stream(args.n - args.n % batch or batch, args.dim, batch)
    moments = RunningMoments(args.dim)
    incremental = IncrementalPCA(k)
    # Of the wall clock and of the CPU
    seconds = {name: np.zeros(2) for name in ("blocks", "exact", "incremental")}
    with threadpool_limits(args.threads):
        before = clock()
        # Block by block in turn: both see the machine in the same state.
        for block in stream:
            seconds["blocks"] += clock() - before
            before = clock()
            moments.add(block)
            seconds["exact"] += clock() - before
            before = clock()
            incremental.partial_fit(block)
            seconds["incremental"] += clock() - before
            before = clock()
        exact = moments.components(k)
        seconds["exact"] += clock() - before
        values, columns = np.linalg.eigh(two_pass(stream))
    true_std = np.sqrt(values[::-1][:k])
    true_rows = columns.T[::-1][:k]

    print(
        f"{stream.n} x {args.dim}, {k} components, {args.threads} thread(s); "
        f"drawing the blocks took {seconds['blocks'][0]:.1f} s"
    )
    print(
        f"{'':12} {'wall s':>8} {'CPU s':>8} {'largest error of a standard deviation':>38} "
        f"{'subspace overlap':>17}"
    )
    found = {
        "exact": (exact.stdev, exact.rows),
        "incremental": (np.sqrt(incremental.explained_variance_), incremental.components_),
    }
    for name, (std, rows) in found.items():
        wall, cpu = seconds[name]
        # Subspaces and not vectors: those of close eigenvalues may turn into each other.
        overlap = np.square(rows @ true_rows.T).sum() / k
        error = np.abs(std / true_std - 1).max()
        print(f"{name:12} {wall:8.2f} {cpu:8.2f} {error:38.1e} {overlap:17.6f}")
    wall, cpu = seconds["incremental"] / seconds["exact"]
    print(
        f"exact is {wall:.1f} times as fast as incremental by the wall clock, "
        f"{cpu:.1f} times by CPU time"
    )


if __name__ == "__main__":
    main()
