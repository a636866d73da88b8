"""Tolerances of pinned numbers: measured on runs that should agree, or a default.

The default depends only on the pinned row. It is the largest of 5 % of the value, a quarter of the
width of its 95 % interval, and 1 for a count (a whole number without an interval). Without samples
to pair, it is half of the width, since then only the tolerance allows for noise.

A measured tolerance is twice the largest absolute deviation of other runs of the same job from the
pinned value. A few runs may agree in one row by chance. Therefore all rows of one metric of a
method (20 or more) give a scale: the 95 % quantile of the deviation divided by the default
tolerance. A measured tolerance is at least twice the scale times the default, and at least a fifth
of the default (the floor).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from editbench.base.errors import EditbenchError
from editbench.regression.pins import Key, Pin, PinnedRun, key_fields, significant
from editbench.walk.rows import written_key

# The default tolerance.
RELATIVE = 0.05  # share of the value
PAIRED = 0.25  # share of the interval's width, with samples to pair
ALONE = 0.5  # share of the interval's width, without samples
COUNT = 1.0  # of a count
# A measured tolerance.
FACTOR = 2.0  # times the largest deviation, or the scale
FLOOR = 0.2  # least share of the default
QUANTILE = 0.95  # of the deviations that give the scale
MIN_ROWS = 20  # least number of rows that have a scale
RULE = {
    "default": f"max({RELATIVE:g} |value|, {PAIRED:g} (high - low), or {ALONE:g} (high - low) without samples, "
    f"{COUNT:g} for a count)",
    "floor": f"{FLOOR:g} default",
    "scale": f"{FACTOR:g} default {QUANTILE:g}-quantile(largest |deviation| / default) over the rows of "
    "one metric of the method",
    "spread": f"max({FACTOR:g} largest |deviation| of the spread runs, scale, floor)",
}


def default(pin: Pin, paired: bool) -> float:
    """The default tolerance of a row; NaN if it has no value.

    Args:
        pin: the row.
        paired: whether it has samples to pair.
    """
    if not math.isfinite(pin.value):
        return math.nan
    # NaN if the row has no interval, such as a count or a length.
    width = pin.high - pin.low
    if math.isfinite(width):
        return max(RELATIVE * abs(pin.value), (PAIRED if paired else ALONE) * width)
    # A whole number without an interval is taken for a count; 5 % of a small count is less than 1.
    return max(RELATIVE * abs(pin.value), COUNT if pin.value == round(pin.value) else 0.0)


def deviations(run: PinnedRun, others: Sequence[PinnedRun]) -> dict[Key, float]:
    """The largest absolute deviation of other runs from each row of a pinned run.

    If a tolerance was measured before, the deviation that it was computed from counts too.

    Args:
        run: the pinned run.
        others: its `counterparts`.

    Returns:
        Key of a row -> deviation in the unit of its value, without rows that have no finite
        deviation.
    """
    found: dict[Key, float] = {}
    for key, pin in run.rows.items():
        seen = [other.rows[key].value for other in others if key in other.rows]
        gaps = [abs(value - pin.value) for value in seen if math.isfinite(value - pin.value)]
        if gaps and pin.origin == "spread":
            gaps.append(pin.tolerance / FACTOR)
        if gaps:
            found[key] = max(gaps)
    return found


def default_of_row(run: PinnedRun, key: Key) -> float:
    """The `default` of a row of a run, which knows whether the row has samples to pair."""
    return default(run.rows[key], run.series(key) is not None)


def scales(
    runs: Sequence[PinnedRun], gaps: Sequence[Mapping[Key, float]]
) -> dict[tuple[str, str], float]:
    """The scale of each metric of a method, see the module.

    Args:
        runs: the pinned runs.
        gaps: the `deviations` of each run, in the same order.

    Returns:
        (method, metric) -> QUANTILE of the deviations divided by the default tolerance, without
        metrics that have fewer than MIN_ROWS rows.
    """
    shares: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run, found in zip(runs, gaps):
        for key, gap in found.items():
            tolerance = default_of_row(run, key)
            # The default is 0 where a value without an interval is 0.
            if tolerance > 0:
                shares[run.method, metric_of(key)].append(gap / tolerance)
    return {
        of: float(np.quantile(values, QUANTILE))
        for of, values in shares.items()
        if len(values) >= MIN_ROWS
    }


def metric_of(key: Key) -> str:
    """The name of a number's metric."""
    return str(key_fields(key)["metric"])


def with_tolerances(
    run: PinnedRun, gaps: Mapping[Key, float], scale: Mapping[tuple[str, str], float]
) -> PinnedRun:
    """A pinned run with measured tolerances; rows without a deviation have the default.

    A tolerance that a row had before does not become smaller.

    Args:
        run: the pinned run.
        gaps: the largest deviations of its rows.
        scale: of the metrics of all methods; see `scales`.
    """
    rows = {}
    for key, pin in run.rows.items():
        unmeasured = default_of_row(run, key)
        tolerances = {"default": unmeasured}
        if key in gaps:
            shared = scale.get((run.method, metric_of(key)), 0.0)
            tolerances = {
                "floor": FLOOR * unmeasured,
                "scale": FACTOR * shared * unmeasured,
                "spread": FACTOR * gaps[key],
            }
        if pin.origin:
            tolerances[pin.origin] = max(pin.tolerance, tolerances.get(pin.origin, 0.0))
        # The first one among equal tolerances.
        origin = max(tolerances, key=lambda name: tolerances[name])
        # The spread of a few runs is not known more precisely than to four digits.
        tolerance = significant(tolerances[origin], 4)
        rows[key] = replace(pin, tolerance=tolerance, origin=origin)
    return replace(run, rows=rows)


def counterparts(run: PinnedRun, others: Sequence[PinnedRun], where: str) -> list[PinnedRun]:
    """The finished runs of the same job, with any batch, number of threads or hardware.

    They have the seed of the pinned run. Other seeds count only if no run has this seed: a fit with
    another seed deviates much more than the same fit on another processor.

    Args:
        run: the pinned run.
        others: the runs of one folder, without `run` itself.
        where: name of the folder, for messages.

    Raises:
        EditbenchError: all were made by other code, or one by another version of a metric. Their
            deviation would not be noise.
    """
    same = [
        other
        for other in others
        if (other.method, other.attribute) == (run.method, run.attribute)
        and other.status == "done"
        and other.options == run.options
        and other.setting == run.setting
    ]
    # A folder may contain records of older code too. It is an error only if there are no others.
    recoded = [other for other in same if other.source != run.source]
    if recoded and len(recoded) == len(same):
        raise EditbenchError(
            f"{recoded[0].run_id} in '{where}' was made by other code of {run.method} than "
            f"{run.run_id}: spread is measured with one code; run the jobs again"
        )
    same = [other for other in same if other.source == run.source]
    same = [other for other in same if other.seed == run.seed] or same
    for other in same:
        for key in run.rows.keys() & other.rows.keys():
            versions = run.rows[key].version, other.rows[key].version
            # Rows that other programs wrote may have no version, and NaN is not equal to itself.
            unknown = all(math.isnan(version) for version in versions)
            if versions[0] != versions[1] and not unknown:
                raise EditbenchError(
                    f"{other.run_id} in '{where}' has version {versions[1]:g} of "
                    f"{written_key(key)}, {run.run_id} has {versions[0]:g}: run the jobs again"
                )
    return same


def describe_changes(pairs: Sequence[tuple[PinnedRun, PinnedRun]]) -> dict[str, list[str]]:
    """What differed between runs and their counterparts, such as {'seed': ['0 -> 1', '0 -> 2']}.

    Args:
        pairs: (pinned run, counterpart).
    """
    found: dict[str, set[str]] = {}
    for run, other in pairs:
        for key, value in run.changed.items():
            if other.changed.get(key) != value:
                found.setdefault(key, set()).add(f"{value} -> {other.changed.get(key)}")
    return {key: sorted(values) for key, values in sorted(found.items())}


def measure_tolerances(
    runs: Sequence[PinnedRun], spreads: Mapping[str, Sequence[PinnedRun]], own: str = ""
) -> tuple[list[PinnedRun], dict]:
    """Measure tolerances on runs that should agree.

    Args:
        runs: the runs to pin.
        spreads: name of a folder -> its runs.
        own: name of the folder that the pinned runs are from, if it is one of these; otherwise ''.
            A record there is not compared with itself.

    Returns:
        The runs with their tolerances, and folder -> number of runs and what was varied. A reader
        of the baseline file thus knows what the tolerances allow for.

    Raises:
        EditbenchError: a folder has no run of any pinned job.
    """
    about: dict[str, dict] = {}
    matched: list[list[PinnedRun]] = [[] for _ in runs]
    for where, others in spreads.items():
        pairs = []
        for found, run in zip(matched, runs):
            if run.status != "done":
                continue
            rivals = [other for other in others if where != own or other.run_id != run.run_id]
            same = counterparts(run, rivals, where)
            found += same
            pairs += [(run, other) for other in same]
        if not pairs:
            raise EditbenchError(
                f"'{where}' holds no finished run of a pinned job (same method and options, "
                "attribute, bank, judge, starts and walk limits): run the same jobs there with "
                "another engine.batch, OMP_NUM_THREADS or seed"
            )
        about[where] = {"runs": len(pairs), "varied": describe_changes(pairs)}
    gaps = [deviations(run, found) for run, found in zip(runs, matched)]
    scale = scales(runs, gaps)
    return [with_tolerances(run, found, scale) for run, found in zip(runs, gaps)], about
