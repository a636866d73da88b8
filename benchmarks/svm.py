"""Linear support vector machines: solver 'newton' of InterFaceGAN, against scikit-learn's.

It takes Newton's method in the primal, and SVC where there are few samples a channel. Times are CPU
seconds of one thread. SVC takes minutes at the default size; `--samples 2000` shows the small end.

    python benchmarks/svm.py [--samples 20000] [--dim 512] [--noise 0.5]

`noise` is that of the labels in units of the projection's own spread: 0 separates the classes, 1
mixes them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits

from editbench.methods.interfacegan.boundaries import soft_margin
from editbench.methods.interfacegan.projection import unit


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
        "newton (editbench)": lambda: soft_margin(x, y, "newton")[0],
        "LinearSVC": liblinear,
    }
    normals = {}
    seconds = {}
    for name, solve in solvers.items():
        began = time.process_time()
        with threadpool_limits(1):
            normals[name] = unit(solve())
        seconds[name] = time.process_time() - began
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
