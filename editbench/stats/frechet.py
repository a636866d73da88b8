"""Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017, eq. 6), in
float64.

The trace of the matrix square root is computed from the symmetric matrix sqrt(A) B sqrt(A), which
has the same eigenvalues as A B but, unlike it, a real spectrum in floating point.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def moments(features: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and unbiased covariance (D, D) in float64 of features (N, D), N >= 2."""
    # Networks return float32, in which sums over many samples lose precision.
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"need features (N, D) with N >= 2, got shape {x.shape}")
    # np.cov returns a scalar for D = 1.
    return x.mean(0), np.atleast_2d(np.cov(x, rowvar=False))


def gaussian_distance(
    mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray
) -> float:
    """Squared Fréchet distance between two Gaussians (Heusel et al. 2017, eq. 6).

    It is |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) for covariances A and B.

    Args:
        mean_a: (D,) float64.
        cov_a: (D, D) float64, symmetric; may be singular, as for fewer samples than dimensions.
        mean_b: (D,) float64.
        cov_b: (D, D) float64, symmetric.

    Returns:
        The distance in the squared unit of the features; at least 0, up to rounding.
    """
    # For a singular covariance, rounding leaves eigenvalues of about -1e-17.
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    spectrum = np.linalg.eigvalsh(root @ cov_b @ root).clip(min=0)
    # The trace of (A B)^(1/2) is the sum of the square roots of the eigenvalues of A B.
    gap = np.asarray(mean_a) - np.asarray(mean_b)
    return float(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(spectrum).sum())


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Squared Fréchet distance of Gaussians fitted to two sets (Heusel et al. 2017, eq. 6).

    The estimate is biased and decreases with the number of samples, so compare only at equal sizes.

    Args:
        a: (N, D) features, N >= 2.
        b: (M, D) features of the same network, M >= 2.

    Raises:
        ValueError: an array has another shape, or fewer than two rows.
    """
    return gaussian_distance(*moments(a), *moments(b))
