"""Conditional manipulation (InterFaceGAN): joint projection of a direction orthogonal to others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr

# For unit normals: a row that adds less than this counts as lying in the span of the others.
RANK_TOLERANCE = 1e-8
# For a unit normal: a shorter remainder is noise, which normalisation would only amplify.
TOO_SMALL = 1e-3


@dataclass(frozen=True)
class Projection:
    """A normal from which conditions were projected out.

    Args:
        direction: (d,) unit vector n'.
        remaining: its length before normalisation.
        residual: ||C n'||_inf, the remaining component along the conditions.
        rank: of C.
    """

    direction: np.ndarray
    remaining: float
    residual: float
    rank: int


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows (..., d) at unit length in float64; zero rows stay zero."""
    vectors = np.asarray(vectors, np.float64)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def project(normal: np.ndarray, conditions: np.ndarray) -> Projection:
    """n' = n - C^T (C C^T)^-1 C n, normalised, for all rows of C at once, in float64.

    The Gram matrix is not formed. A pivoted QR of C^T gives an orthonormal basis Q of the rows'
    span for any rank, and n' = n - Q Q^T n (applied twice, to remove rounding errors). Projecting
    out the conditions one after another is not equivalent unless they are orthogonal: a later step
    brings back part of an earlier condition.

    Args:
        normal: (d,) of any length.
        conditions: C, (m, d) of any length and rank; m may be 0.

    If `remaining` is below TOO_SMALL, the normal lies in the span of the conditions, and the caller
    must not use the direction.
    """
    normal = unit(normal)
    rows = unit(conditions).reshape(-1, len(normal))
    # Zero rows are no conditions and would only disturb the rank.
    rows = rows[np.linalg.norm(rows, axis=1) > 0]
    basis = np.zeros((len(normal), 0))
    rank = 0
    if len(rows):
        # With pivoting the diagonal of R decreases, so the rank is a count.
        q, r, _ = qr(rows.T, mode="economic", pivoting=True)
        rank = int((np.abs(np.diag(r)) > RANK_TOLERANCE).sum())
        basis = q[:, :rank]
    left = normal - basis @ (basis.T @ normal)
    left = left - basis @ (basis.T @ left)
    direction = unit(left)
    residual = float(np.abs(rows @ direction).max()) if len(rows) else 0.0
    return Projection(direction, float(np.linalg.norm(left)), residual, rank)
