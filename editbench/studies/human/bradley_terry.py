"""Bradley-Terry strengths by maximum likelihood, for many tables of wins in one call.

The model is P(i is chosen over j) = 1 / (1 + exp(s_j - s_i)) (Bradley and Terry, 1952). Its
log-likelihood is concave and is maximised by Newton's method. Finite strengths exist if every
method is connected to every other one by a chain of wins (Ford, 1957).
"""

from __future__ import annotations

import numpy as np

RIDGE = 1e-3  # for bootstrap draws without finite strengths, which are then large and not infinite
STEPS = 60  # most steps of Newton's method
LONGEST = 2.0  # largest step, in log-odds, which prevents overshooting


def fit(wins: np.ndarray, ridge: float = 1e-9) -> np.ndarray:
    """Strengths by maximum likelihood (Bradley and Terry, 1952), by Newton's method.

    Args:
        wins: (..., m, m) how often the row's method was chosen over the column's.
        ridge: weight of a penalty on the squared strengths, which also fixes their mean.

    Returns:
        (..., m) in log-odds, mean zero.
    """
    wins = np.asarray(wins, np.float64)
    m = wins.shape[-1]
    games = wins + np.swapaxes(wins, -1, -2)
    total = wins.sum(-1)
    strengths = np.zeros(wins.shape[:-1])
    level = np.full((m, m), 1.0 / m)  # along the all-ones vector the likelihood is flat
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(strengths[..., None, :] - strengths[..., :, None]))
        slope = total - (games * chance).sum(-1) - ridge * strengths
        spread = games * chance * (1 - chance)
        curve = spread.sum(-1)[..., None] * np.eye(m) - spread + ridge * np.eye(m) + level
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        # At least 1e-300, since a step may be 0.
        step *= np.minimum(1.0, LONGEST / np.maximum(np.abs(step).max(-1, keepdims=True), 1e-300))
        strengths = strengths + step
        # `initial` is needed if there is no table at all.
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
    return strengths - strengths.mean(-1, keepdims=True)


def connected(wins: np.ndarray) -> np.ndarray:
    """Whether strengths are finite: every method reaches every other one by a chain of wins.

    Args:
        wins: (..., m, m) how often the row's method was chosen over the column's.

    Returns:
        (...,) bool.
    """
    m = wins.shape[-1]
    reach = (np.asarray(wins) > 0).astype(np.float64) + np.eye(m)
    for _ in range(max(1, (m - 1).bit_length())):  # paths of twice the length
        reach = np.minimum(reach @ reach, 1.0)
    return np.asarray((reach > 0).all((-1, -2)))
