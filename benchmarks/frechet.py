"""Measures time and memory of the Fréchet distance over edit strengths, by streamed statistics.

For each of several edit strengths, both implementations compute the Fréchet distance between the
features of the edited images and the features of reference images, and the jackknife pseudo-values
over ten blocks of images. The features are random numbers.

    all features        (straightforward) keeps the features of all strengths. It computes mean and
                        covariance again for every block that is left out.
    moments by blocks   (ours) reads the features in batches, and keeps only count, sum and outer
                        products of each block

The columns are: seconds of wall time; the time of the straightforward implementation divided by
that of the row; the memory of what is kept, MiB; and the largest relative difference between the
results of both, distances and pseudo-values.

    python benchmarks/frechet.py    # some CPU seconds
    python benchmarks/frechet.py --n 1000 --dim 16 --points 3     # a short run

The result guards metrics/frechet_distance and editbench/stats/moments.py.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np

from editbench.metrics.frechet_distance.blocks import jackknife
from editbench.stats.frechet import gaussian_distance, moments
from editbench.stats.moments import Moments

BATCH = 64  # images whose features are read together
BLOCKS = 10  # of the jackknife
SHIFT = 0.1  # added to every feature from one strength to the next


class Distances(NamedTuple):
    """The result of an implementation.

    Attributes:
        value: (T,) distance of each of T strengths.
        pseudo: (T, BLOCKS) jackknife pseudo-values.
        kept: bytes of the features or statistics that it keeps.
    """

    value: np.ndarray
    pseudo: np.ndarray
    kept: int


def straightforward(features: np.ndarray, real: np.ndarray) -> Distances:
    """Keep all features, and compute mean and covariance again without each block.

    Args:
        features: (T, n, d) of the edited images, for T strengths.
        real: (n, d) of the reference images.
    """
    reference = moments(real)
    # The blocks are consecutive images, all of the same size.
    size = features.shape[1] // BLOCKS
    values = []
    pseudo = []
    for edited in features:
        value = gaussian_distance(*moments(edited), *reference)
        row = []
        # Pseudo-value of block b: B x (the value of all) - (B - 1) x (the value without b).
        for block in range(BLOCKS):
            others = np.delete(edited, slice(block * size, (block + 1) * size), 0)
            distance = gaussian_distance(*moments(others), *reference)
            row.append(BLOCKS * value - (BLOCKS - 1) * distance)
        values.append(value)
        pseudo.append(row)
    return Distances(np.array(values), np.array(pseudo), features.nbytes)


def streamed(features: np.ndarray, real: np.ndarray) -> Distances:
    """Read the features in batches, and keep the moments of each block.

    Args:
        features: (T, n, d) of the edited images, for T strengths.
        real: (n, d) of the reference images.
    """
    n, dim = real.shape
    edited = [Moments(n, BLOCKS, dim) for _ in features]
    reference = Moments(n, 1, dim)
    for first in range(0, n, BATCH):
        reference.update(real[first : first + BATCH], first)
        for accumulated, values in zip(edited, features):
            accumulated.update(values[first : first + BATCH], first)
    arrays = {}
    for name in ("count", "sum", "outer"):
        arrays[name] = np.stack([accumulated.arrays()[name] for accumulated in edited])
    kept = sum(array.nbytes for array in arrays.values())
    # The reference is not divided into blocks, so its only block is all of it.
    reference_arrays = reference.arrays()
    arrays["reference_count"] = reference_arrays["count"]
    arrays["reference_sum"] = reference_arrays["sum"][0]
    arrays["reference_outer"] = reference_arrays["outer"][0]
    result = jackknife(arrays, np.ones(len(features), bool))
    return Distances(result.value, result.blocks, kept)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--n",
        type=int,
        default=20000,
        help="images at each strength, a multiple of 10 (default: %(default)s)",
    )
    parser.add_argument(
        "--dim", type=int, default=128, help="features of an image (default: %(default)s)"
    )
    parser.add_argument(
        "--points", type=int, default=11, help="edit strengths (default: %(default)s)"
    )
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    # The features are correlated, as those of images are.
    mix = rng.normal(size=(args.dim, args.dim)) / args.dim**0.5
    base = (rng.normal(size=(args.n, args.dim)) @ mix).astype(np.float32)
    real = (rng.normal(size=(args.n, args.dim)) @ mix).astype(np.float32)
    features = np.stack([base + SHIFT * k for k in range(args.points)])
    began = time.perf_counter()
    expected = straightforward(features, real)
    slow = time.perf_counter() - began
    began = time.perf_counter()
    ours = streamed(features, real)
    fast = time.perf_counter() - began
    value_gap = np.abs(ours.value / expected.value - 1).max()
    pseudo_gap = np.abs(ours.pseudo / expected.pseudo - 1).max()
    worst = max(value_gap, pseudo_gap)
    print(f"{args.n} images, {args.dim} features, {args.points} strengths, {BLOCKS} blocks")
    print(f"{'implementation':20}{'seconds':>10}{'ratio':>8}{'kept, MiB':>12}{'difference':>12}")
    kept = expected.kept / 2**20
    print(f"{'all features':20}{slow:10.2f}{1.0:8.1f}{kept:12.1f}")
    kept = ours.kept / 2**20
    print(f"{'moments by blocks':20}{fast:10.2f}{slow / fast:8.1f}{kept:12.1f}{worst:12.1e}")


if __name__ == "__main__":
    main()
