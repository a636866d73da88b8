"""Linear support vector machines at 20,000 x 512: Newton in the primal, against scikit-learn's.

    python benchmarks/svm.py [--samples 20000] [--dim 512] [--noise 0.5]

`noise` is that of the labels in units of the projection's own spread: 0 separates the classes, 1
mixes them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.svm import SVC, LinearSVC

from editbench.methods.interfacegan.projection import unit
from editbench.methods.interfacegan.svm import linear_svm


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--noise", type=float, default=0.5)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(args.samples, args.dim))
    y = (x @ unit(rng.normal(size=args.dim)) + args.noise * rng.normal(size=len(x)) > 0).astype(int)

    # The hinge loss as SVC has it; liblinear's default is its square.
    def liblinear() -> np.ndarray:
        return LinearSVC(loss="hinge", dual=True, tol=1e-5, max_iter=100_000).fit(x, y).coef_[0]

    solvers = {
        "SVC (published)": lambda: SVC(kernel="linear", C=1.0, cache_size=2000).fit(x, y).coef_[0],
        "newton (editbench)": lambda: linear_svm(x, y).normal,
        "LinearSVC": liblinear,
    }
    normals = {}
    seconds = {}
    for name, solve in solvers.items():
        began = time.perf_counter()
        normals[name] = unit(solve())
        seconds[name] = time.perf_counter() - began
        # SVC comes first: the others are compared with it.
        first = next(iter(solvers))
        ratio = seconds[first] / seconds[name]
        # Flushed, for SVC takes minutes.
        print(
            f"{name:20} {seconds[name]:8.2f} s   {ratio:7.1f}x   cosine to SVC "
            f"{normals[name] @ normals[first]:.6f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
