"""Curves read at the point where they first reach a level.

Control C and disentanglement D (Khrulkov et al. 2021, eq. 6 and 7) are both curves over the steps of
a walk, and neither need be monotone. D is therefore read as a function of C at the first crossing:
the first time that C reaches a level c, on the straight line between the two grid points around it.
The functions take (..., T) arrays and work along the last axis, so that all draws of a bootstrap are
one call. `at_effect` reads single walks in the same way, at a matched achieved effect.
"""

from __future__ import annotations

import numpy as np


def at_level(control: np.ndarray, other: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Read a curve where another one first reaches each of several levels.

    Args:
        control: (..., T) curve whose first crossing is looked for.
        other: (..., T) curve that is read there.
        levels: (L,) levels of `control`.

    Returns:
        (..., L), NaN where `control` never reaches the level.
    """
    control = np.asarray(control, np.float64)
    other = np.asarray(other, np.float64)
    out = np.full((*control.shape[:-1], len(levels)), np.nan)
    for position, level in enumerate(levels):
        beyond = control >= level
        # argmax of booleans is the first True. It is 0 where there is none, which is masked below.
        after = beyond.argmax(-1)[..., None]
        before = np.maximum(after - 1, 0)
        low = np.take_along_axis(control, before, -1)
        high = np.take_along_axis(control, after, -1)
        # A level that is reached at the very first point has no piece before it: both ends are that
        # point, and the share is 0.
        share = np.divide(level - low, high - low, out=np.zeros_like(low), where=high > low)
        value = (1 - share) * np.take_along_axis(other, before, -1) + share * np.take_along_axis(
            other, after, -1
        )
        out[..., position] = np.where(beyond.any(-1), value[..., 0], np.nan)
    return out


def area(control: np.ndarray, other: np.ndarray, top: float | np.ndarray = np.inf) -> np.ndarray:
    """Integrate a curve over another one, exactly, along its straight pieces.

    Args:
        control: (..., T) curve on the axis; only pieces that reach a new largest value count.
        other: (..., T) curve that is integrated.
        top: end of the integral; the largest control ends it where that is less.

    Returns:
        (...) the integral from the first point's control.
    """
    control = np.asarray(control, np.float64)
    other = np.asarray(other, np.float64)
    # Where control falls back, the levels that it passes again are not counted twice.
    reached = np.maximum.accumulate(control, -1)
    low = reached[..., :-1]
    high = np.minimum(reached[..., 1:], np.asarray(top)[..., None])
    gained = high > low  # a new level, so control rises along this piece
    # 1 where nothing is gained avoids a division by 0; such pieces are masked below.
    rise = np.where(gained, control[..., 1:] - control[..., :-1], 1.0)
    slope = (other[..., 1:] - other[..., :-1]) / rise
    # The mean of a straight piece is its value at the middle of the part that is new.
    middle = other[..., :-1] + slope * ((low + high) / 2 - control[..., :-1])
    return np.where(gained, (high - low) * middle, 0.0).sum(-1)


def most_within(control: np.ndarray, other: np.ndarray, limit: float) -> np.ndarray:
    """Find the largest control at which another curve still keeps within a limit.

    Args:
        control: (..., T) curve that is maximised, on its straight pieces.
        other: (..., T) curve that must be at most `limit`.

    Returns:
        (...) the largest control, NaN where `other` exceeds the limit everywhere.
    """
    control = np.asarray(control, np.float64)
    other = np.asarray(other, np.float64)
    inside = np.where(other <= limit, control, -np.inf).max(-1)
    # Where a piece passes the limit between two grid points, its end there counts too.
    step = other[..., 1:] - other[..., :-1]
    gap = limit - other[..., :-1]
    # A piece that is shorter than its gap does not meet the limit: -1 leaves it out below.
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
    """Read each walk where it first reaches an achieved effect, between its two decoded neighbours.

    Args:
        x: (rows,) achieved effect in standard deviations of the logit, 0 at step 0; rows in the order
            of (start, step).
        values: (rows, k) what is read.
        owner: (rows,) number of the walk that a row belongs to.
        sound: (rows,) which rows may be read.
        level: the effect, above 0.
        starts: how many walks there are.

    Returns:
        (starts, k), NaN where a walk never reaches the level.
    """
    # The neighbours are sound rows: where some lie between that are not, they are passed over.
    rows = np.flatnonzero(sound)
    same_walk = owner[rows[1:]] == owner[rows[:-1]]
    beyond = np.flatnonzero((x[rows[1:]] >= level) & same_walk) + 1
    # np.unique returns the first row of each walk, since rows are sorted by start and step.
    after = beyond[np.unique(owner[rows[beyond]], return_index=True)[1]]
    a = rows[after - 1]
    b = rows[after]
    share = ((level - x[a]) / (x[b] - x[a]))[:, None]
    out = np.full((starts, values.shape[1]), np.nan)
    out[owner[b]] = (1 - share) * values[a] + share * values[b]
    return out
