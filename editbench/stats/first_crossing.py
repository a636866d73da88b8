"""Two mean curves of a walk, read against each other: how much D there is where C first reaches a level.

Control C and disentanglement D (Khrulkov et al. 2021, eq. 6 and 7) are both curves over steps; neither need be
monotone. D is therefore taken as a function of C at first passage: the first time that C reaches a level c, on the
straight line between the two grid points around it. All functions take (..., T) arrays and work along the last axis, so
that bootstrap draws are one call. `at_effect` reads single walks the same way, at a matched achieved effect.
"""

from __future__ import annotations

import numpy as np


def at_level(control: np.ndarray, other: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """`other` where `control` first reaches each level, NaN where it never does: (..., T) twice, (L,) -> (..., L)."""
    control, other = np.asarray(control, np.float64), np.asarray(other, np.float64)
    out = np.full((*control.shape[:-1], len(levels)), np.nan)
    for position, level in enumerate(levels):
        beyond = control >= level
        after = beyond.argmax(-1)[..., None]
        before = np.maximum(after - 1, 0)
        low, high = (np.take_along_axis(control, place, -1) for place in (before, after))
        share = np.divide(
            level - low, high - low, out=np.zeros_like(low), where=(high > low) & (after > 0)
        )
        value = (1 - share) * np.take_along_axis(other, before, -1) + share * np.take_along_axis(
            other, after, -1
        )
        out[..., position] = np.where(beyond.any(-1), value[..., 0], np.nan)
    return out


def area(control: np.ndarray, other: np.ndarray, top: float | np.ndarray = np.inf) -> np.ndarray:
    """Exact integral of `other` as a function of `control`, from the first point's control to `top` or, where that is
    less, to the largest control: (..., T), (..., T) -> (...)."""
    control, other = np.asarray(control, np.float64), np.asarray(other, np.float64)
    reached = np.maximum.accumulate(control, -1)
    low = reached[..., :-1]
    high = np.minimum(reached[..., 1:], np.asarray(top)[..., None])
    gained = high > low  # a new level, so control rises along this piece
    rise = np.where(gained, control[..., 1:] - control[..., :-1], 1.0)
    slope = (other[..., 1:] - other[..., :-1]) / rise
    middle = other[..., :-1] + slope * ((low + high) / 2 - control[..., :-1])
    return np.where(gained, (high - low) * middle, 0.0).sum(-1)


def most_within(control: np.ndarray, other: np.ndarray, limit: float) -> np.ndarray:
    """Largest `control` on the straight pieces of the curve where `other` is at most `limit`; NaN where it never is."""
    control, other = np.asarray(control, np.float64), np.asarray(other, np.float64)
    inside = np.where(other <= limit, control, -np.inf).max(-1)
    step, gap = other[..., 1:] - other[..., :-1], limit - other[..., :-1]
    share = np.divide(gap, step, out=np.full_like(step, -1.0), where=np.abs(step) > np.abs(gap))
    meeting = control[..., :-1] + share * (control[..., 1:] - control[..., :-1])
    between = np.where((share > 0) & (share < 1), meeting, -np.inf).max(-1, initial=-np.inf)
    best = np.maximum(inside, between)
    return np.where(np.isfinite(best), best, np.nan)


def at_effect(
    x: np.ndarray,
    values: np.ndarray,
    owner: np.ndarray,
    sound: np.ndarray,
    level: float,
    starts: int,
) -> np.ndarray:
    """Values where each walk first passes an achieved effect, on the straight line between its two decoded neighbours.

    Args:
        x: (rows,) achieved effect, 0 at step 0; rows in the order of (start, step). values: (rows, k).
        owner: (rows,) which of the `starts` walks a row belongs to. sound: (rows,) rows that may be read.
        level: above 0.

    Returns:
        (starts, k), NaN where a walk never gets there.
    """
    rows = np.flatnonzero(sound)
    beyond = np.flatnonzero((x[rows[1:]] >= level) & (owner[rows[1:]] == owner[rows[:-1]])) + 1
    after = beyond[np.unique(owner[rows[beyond]], return_index=True)[1]]
    a, b = rows[after - 1], rows[after]
    share = ((level - x[a]) / (x[b] - x[a]))[:, None]
    out = np.full((starts, values.shape[1]), np.nan)
    out[owner[b]] = (1 - share) * values[a] + share * values[b]
    return out
