"""Linear boundaries of latent codes, between samples of two sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from editbench.base import seeding
from editbench.methods.interfacegan.svm import linear_svm
from editbench.methods.shared.projection import unit

# Minimum size of a class. With fewer samples, most of the extreme samples on its side would belong
# to another class.
MIN_EXAMPLES = 10
# Up to this many samples per channel, SVC is faster than Newton's method (benchmarks/svm.py).
FEW = 4


@dataclass(frozen=True)
class Boundary:
    """A hyperplane between a low and a high side.

    Args:
        normal: (d,) unit, towards the high side.
        intercept: <x, normal> + intercept is the signed distance of x.
        accuracy: on the held-out samples; NaN if there are none.
        sides: (2, per_side) positions of the samples used on the low and on the high side.
    """

    normal: np.ndarray
    intercept: float
    accuracy: float
    sides: np.ndarray

    @property
    def per_side(self) -> int:
        return self.sides.shape[1]

    @property
    def hyperplane(self) -> np.ndarray:
        """(d + 1,): the normal and the intercept."""
        return np.append(self.normal, self.intercept)


def per_side(n: int, ratio: float, minimum: int) -> int:
    """Number of samples on each side of a boundary.

    The published code of Shen et al. (CVPR 2020) uses ratio * n, at most n // 2.

    Args:
        n: number of candidates, of both sides together.
        ratio: share of the candidates on each side.
        minimum: smaller numbers are raised to it, as far as there are candidates.
    """
    # With more than half on a side, some samples would be on both sides.
    return min(max(int(ratio * n), minimum), n // 2)


def extreme_sides(scores: np.ndarray, count: int) -> np.ndarray:
    """Positions of the lowest and of the highest scores: (2, count).

    Args:
        scores: (n,) scores of the high side's class.
        count: number of samples on each side.
    """
    # A stable sort, so that ties give the same sides on every platform.
    order = np.argsort(scores, kind="stable")
    return np.stack([order[:count], order[-count:]])


def fit_boundary(
    codes: np.ndarray,
    sides: np.ndarray,
    hold_out: float,
    solver: str,
    standardise: bool,
    seed: int,
    name: str,
) -> Boundary:
    """Fit a hyperplane between the samples of two sides.

    Args:
        codes: (n, d) latents.
        sides: (2, m) positions of the samples on the low and on the high side.
        hold_out: share of each side that is held out and gives the accuracy.
        solver: 'svc' (as published) or 'newton' (the same optimum, see `soft_margin`).
        standardise: fit on codes scaled to unit variance in every channel; the normal is mapped
            back.
        seed: of the split.
        name: of the boundary, for its own random split.

    Raises:
        ValueError: there are fewer than two samples per side.
    """
    count = sides.shape[1]
    if count < 2:
        raise ValueError(f"boundary '{name}': {len(codes)} samples are too few")
    low = sides[0][seeding.rng(seed, "boundary", name, 0).permutation(count)]
    high = sides[1][seeding.rng(seed, "boundary", name, 1).permutation(count)]
    # At least one sample of each side is used for training.
    cut = max(count - round(hold_out * count), 1)
    train = np.concatenate([high[:cut], low[:cut]])
    held_out = np.concatenate([high[cut:], low[cut:]])
    x = np.asarray(codes, np.float64)
    scale = x[train].std(0) if standardise else np.ones(x.shape[1])
    # A constant channel is not scaled.
    scale = np.where(scale > 0, scale, 1.0)
    normal, intercept = soft_margin(x[train] / scale, np.repeat([1, 0], cut), solver)
    accuracy = float("nan")
    if len(held_out):
        side = (x[held_out] / scale) @ normal + intercept > 0
        accuracy = float((side == np.repeat([True, False], count - cut)).mean())
    # <x / s, n> = <x, n / s>: the normal in the codes' own units, and the intercept with it.
    length = float(np.linalg.norm(normal / scale))
    return Boundary(unit(normal / scale), intercept / max(length, 1e-300), accuracy, sides)


def soft_margin(x: np.ndarray, y: np.ndarray, solver: str) -> tuple[np.ndarray, float]:
    """Fit a soft-margin hyperplane with C = 1.

    Args:
        x: (n, d) samples.
        y: (n,) labels of two kinds; the larger one is positive.
        solver: 'svc', scikit-learn's SVC; or 'newton', editbench.methods.interfacegan.svm if there
            are more than FEW samples per channel, otherwise SVC too.

    Returns:
        Coefficients (d,) and intercept.
    """
    # The published code calls scikit-learn's SVC with its defaults, which include C = 1.
    if solver == "svc" or len(x) <= FEW * x.shape[1]:
        # Imported here, since the import takes a second that a cached fit need not spend.
        from sklearn.svm import SVC

        machine = SVC(kernel="linear", C=1.0).fit(x, y)
        return machine.coef_[0], float(machine.intercept_[0])
    found = linear_svm(x, y)
    return found.normal, found.intercept
