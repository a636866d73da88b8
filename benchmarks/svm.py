"""Measures the CPU time of training a linear SVM as InterFaceGAN does, against scikit-learn.

All solvers minimise the hinge loss with C = 1 on the same random codes, in one thread:

    SVC (published)      sklearn.svm.SVC with a linear kernel, which the published code uses
    newton (editbench)   the option solver=newton of the method interfacegan: Newton's method on the
                         primal problem, or SVC itself if there are few samples per channel
    LinearSVC            sklearn.svm.LinearSVC, which also penalises the bias

The columns are: CPU seconds; CPU seconds of SVC divided by those of the row; and the cosine between
the normal vectors of the row and of SVC.

    python benchmarks/svm.py                                # about 6 CPU minutes
    python benchmarks/svm.py --samples 3000 --noise 0.2
    python benchmarks/svm.py --samples 600 --dim 32         # a short run

docs/methods.md reports the result. It guards methods/interfacegan/boundaries.py.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits

from editbench.methods.interfacegan.boundaries import soft_margin
from editbench.methods.shared.projection import unit

REFERENCE = "SVC (published)"  # the row that the others are compared with


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--samples", type=int, default=20_000, help="codes with labels (default: %(default)s)"
    )
    parser.add_argument(
        "--dim", type=int, default=512, help="channels of a code (default: %(default)s)"
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=0.5,
        help="standard deviation of the noise of the labels, in standard deviations of the codes "
        "along the true normal vector: 0 separates the classes, 1 mixes them "
        "(default: %(default)s)",
    )
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(args.samples, args.dim))
    # The true boundary, along which the labels are drawn.
    normal = unit(rng.normal(size=args.dim))
    noise = args.noise * rng.normal(size=args.samples)
    y = (x @ normal + noise > 0).astype(int)

    def svc() -> np.ndarray:
        return SVC(kernel="linear", C=1.0, cache_size=2000).fit(x, y).coef_[0]

    def newton() -> np.ndarray:
        return soft_margin(x, y, "newton")[0]

    def linear_svc() -> np.ndarray:
        # By default, LinearSVC minimises the squared hinge loss.
        return LinearSVC(loss="hinge", dual=True, tol=1e-5, max_iter=100_000).fit(x, y).coef_[0]

    # SVC comes first, because the others are compared with it.
    solvers = {REFERENCE: svc, "newton (editbench)": newton, "LinearSVC": linear_svc}
    normals = {}
    seconds = {}
    print(f"{'solver':20} {'CPU s':>9} {'SVC / solver':>13} {'cosine to SVC':>14}", flush=True)
    for name, solve in solvers.items():
        began = time.process_time()
        # SVC has one thread, so the others must not have more.
        with threadpool_limits(1):
            normals[name] = unit(solve())
        seconds[name] = time.process_time() - began
        ratio = seconds[REFERENCE] / seconds[name]
        cosine = normals[name] @ normals[REFERENCE]
        print(f"{name:20} {seconds[name]:9.2f} {ratio:13.1f} {cosine:14.6f}", flush=True)


if __name__ == "__main__":
    main()
