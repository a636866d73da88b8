"""Fréchet distance over strength: statistics that stream, against keeping every feature.

    python benchmarks/frechet.py [--n 20000] [--dim 128] [--points 11]

Both give the distance of every strength to one reference, and its jackknife over blocks. The straightforward way keeps
the features of all strengths and computes mean and covariance of what is left after each block is taken out; the one of
editbench keeps moments by blocks. The last column is the largest relative difference of the numbers.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from editbench.metrics.frechet_distance.blocks import jackknife
from editbench.stats.frechet import gaussian_distance, moments
from editbench.stats.moments import Moments

BATCH, BLOCKS = 64, 10


def straightforward(features: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T, n, d), (n, d) -> distances (T,) and pseudo-values (T, B)."""
    reference, size = moments(real), features.shape[1] // BLOCKS
    value, pseudo = [], []
    for each in features:
        value.append(gaussian_distance(*moments(each), *reference))
        left = [np.delete(each, slice(b * size, (b + 1) * size), 0) for b in range(BLOCKS)]
        pseudo.append(
            [
                BLOCKS * value[-1] - (BLOCKS - 1) * gaussian_distance(*moments(x), *reference)
                for x in left
            ]
        )
    return np.array(value), np.array(pseudo)


def streamed(features: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The same, and the bytes that are kept."""
    n, dim = real.shape
    sets, other = [Moments(n, BLOCKS, dim) for _ in features], Moments(n, 1, dim)
    for first in range(0, n, BATCH):
        other.update(real[first : first + BATCH], first)
        for moment, each in zip(sets, features):
            moment.update(each[first : first + BATCH], first)
    arrays = {
        name: np.stack([m.arrays()[name] for m in sets]) for name in ("count", "sum", "outer")
    }
    kept = sum(array.nbytes for array in arrays.values())
    arrays |= {
        "reference_count": other.arrays()["count"],
        "reference_sum": other.arrays()["sum"][0],
        "reference_outer": other.arrays()["outer"][0],
    }
    made = jackknife(arrays, np.ones(len(sets), bool))
    return made.value, made.blocks, kept


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--n", type=int, default=20000, help="pictures at each strength, a multiple of 10"
    )
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--points", type=int, default=11)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(args.dim, args.dim)) / args.dim**0.5
    base = (rng.normal(size=(args.n, args.dim)) @ mix).astype(np.float32)
    real = (rng.normal(size=(args.n, args.dim)) @ mix).astype(np.float32)
    features = np.stack([base + 0.1 * k for k in range(args.points)])
    began = time.perf_counter()
    value, pseudo = straightforward(features, real)
    slow = time.perf_counter() - began
    began = time.perf_counter()
    found, blocks, kept = streamed(features, real)
    fast = time.perf_counter() - began
    worst = max(np.abs(found / value - 1).max(), np.abs(blocks / pseudo - 1).max())
    print(f"n={args.n}, d={args.dim}, {args.points} strengths, {BLOCKS} blocks")
    print(f"{'way':20}{'seconds':>10}{'ratio':>8}{'kept, MiB':>12}{'difference':>12}")
    print(f"{'all features':20}{slow:10.2f}{1.0:8.1f}{features.nbytes / 2**20:12.1f}{'':>12}")
    print(
        f"{'moments by blocks':20}{fast:10.2f}{slow / fast:8.1f}{kept / 2**20:12.1f}{worst:12.1e}"
    )


if __name__ == "__main__":
    main()
