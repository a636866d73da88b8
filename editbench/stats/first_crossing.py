"""Evaluating curves at the point where another curve first reaches a level.

Control C and disentanglement D (Khrulkov et al. 2021, eq. 6 and 7) are both curves over the steps
of a walk, and neither need be monotonic. D as a function of C is therefore evaluated at the first
crossing: where C first reaches a level c, by linear interpolation between the two grid points
around it. The functions take (..., T) arrays and work along the last axis, so that all draws of a
bootstrap need one call. `at_effect` evaluates single walks likewise, at a matched achieved effect.
"""

from __future__ import annotations

import numpy as np


def at_level(control: np.ndarray, other: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Evaluate a curve where another one first reaches each of several levels.

    Args:
        control: (..., T) curve whose first crossing is located.
        other: (..., T) curve that is evaluated there.
        levels: (L,) levels of `control`.

    Returns:
        (..., L), NaN if `control` never reaches the level.
    """
    control = np.asarray(control, np.float64)
    other = np.asarray(other, np.float64)
    out = np.full((*control.shape[:-1], len(levels)), np.nan)
    for position, level in enumerate(levels):
        beyond = control >= level
        # argmax of booleans is the first True. Without a True it is 0, which is masked below.
        after = beyond.argmax(-1)[..., None]
        before = np.maximum(after - 1, 0)
        low = np.take_along_axis(control, before, -1)
        high = np.take_along_axis(control, after, -1)
        # If the level is reached at the very first point, there is no segment before it: both ends
        # are this point, and the share is 0.
        share = np.divide(level - low, high - low, out=np.zeros_like(low), where=high > low)
        value = (1 - share) * np.take_along_axis(other, before, -1) + share * np.take_along_axis(
            other, after, -1
        )
        out[..., position] = np.where(beyond.any(-1), value[..., 0], np.nan)
    return out


def area(control: np.ndarray, other: np.ndarray, top: float | np.ndarray = np.inf) -> np.ndarray:
    """Integrate a piecewise linear curve over another one, exactly.

    Args:
        control: (..., T) curve on the axis; only segments that reach a new maximum count.
        other: (..., T) curve that is integrated.
        top: end of the integral, or the largest control if that is less.

    Returns:
        (...) the integral from the first point's control.
    """
    control = np.asarray(control, np.float64)
    other = np.asarray(other, np.float64)
    # If control decreases, levels that it passes again are not counted twice.
    reached = np.maximum.accumulate(control, -1)
    low = reached[..., :-1]
    high = np.minimum(reached[..., 1:], np.asarray(top)[..., None])
    gained = high > low  # a new maximum, so control rises along this segment
    # 1 elsewhere avoids a division by 0; these segments are masked below.
    rise = np.where(gained, control[..., 1:] - control[..., :-1], 1.0)
    slope = (other[..., 1:] - other[..., :-1]) / rise
    # The mean of a linear segment is its value at the middle of the new part.
    middle = other[..., :-1] + slope * ((low + high) / 2 - control[..., :-1])
    return np.where(gained, (high - low) * middle, 0.0).sum(-1)


def most_within(control: np.ndarray, other: np.ndarray, limit: float) -> np.ndarray:
    """Find the largest control at which another curve is within a limit.

    Args:
        control: (..., T) curve that is maximised, including its linear segments.
        other: (..., T) curve that must be at most `limit`.

    Returns:
        (...) the largest control; NaN if `other` exceeds the limit everywhere.
    """
    control = np.asarray(control, np.float64)
    other = np.asarray(other, np.float64)
    inside = np.where(other <= limit, control, -np.inf).max(-1)
    # If a segment crosses the limit between two grid points, the point of crossing counts too.
    step = other[..., 1:] - other[..., :-1]
    gap = limit - other[..., :-1]
    # A segment shorter than its gap does not reach the limit; -1 excludes it below.
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
    """Evaluate each walk where it first reaches an achieved effect, by linear interpolation between
    the two decoded steps around it.

    Args:
        x: (rows,) achieved effect in standard deviations of the logit, 0 at step 0; rows are sorted
            by (start, step).
        values: (rows, k) values to interpolate.
        owner: (rows,) number of the walk that a row belongs to.
        sound: (rows,) bool, rows that may be used.
        level: the effect, above 0.
        starts: number of walks.

    Returns:
        (starts, k), NaN if a walk never reaches the level.
    """
    # Rows that are not sound are skipped, so neighbours are always sound rows.
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
