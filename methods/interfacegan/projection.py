"""Directions that leave other directions alone: the joint projection of conditional manipulation
(InterFaceGAN)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr

# Of unit normals: a row that adds less than this is taken to lie in the span of the others
RANK_TOLERANCE = 1e-8
# Of a unit normal: what is left then is noise, and normalising would only amplify it
TOO_SMALL = 1e-3


@dataclass(frozen=True)
class Projection:
    """A normal from which conditions were projected out.

    Args:
        direction: (d,) unit.
        remaining: its length before it was brought to unit length.
        residual: ||C n'||_inf, what is left of the conditions.
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

    The Gram matrix is not formed: a pivoted QR of C^T gives an orthonormal basis Q of the rows'
    span, whatever their rank, and n' = n - Q Q^T n (twice, to remove what rounding leaves).
    Projecting out one condition after another is something else unless they are orthogonal: a
    later step brings back part of an earlier condition.

    Args:
        normal: (d,) of any length.
        conditions: C, (m, d) of any length and rank; m may be 0.

    `remaining` below TOO_SMALL means that the normal lies in the conditions' span; the caller
    must not walk it.
    """
    normal = unit(normal)
    rows = unit(conditions).reshape(-1, len(normal))
    # Zero rows condition nothing, and would only blur the rank.
    rows = rows[np.linalg.norm(rows, axis=1) > 0]
    basis = np.zeros((len(normal), 0))
    rank = 0
    if len(rows):
        # With pivoting the diagonal of R falls, so that the rank is a count.
        q, r, _ = qr(rows.T, mode="economic", pivoting=True)
        rank = int((np.abs(np.diag(r)) > RANK_TOLERANCE).sum())
        basis = q[:, :rank]
    left = normal - basis @ (basis.T @ normal)
    left = left - basis @ (basis.T @ left)
    direction = unit(left)
    residual = float(np.abs(rows @ direction).max()) if len(rows) else 0.0
    return Projection(direction, float(np.linalg.norm(left)), residual, rank)
