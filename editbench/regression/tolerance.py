"""How far a number may move: measured on runs that should agree, or a named default.

Default, from the pinned row alone: the largest of 5 % of the value, a quarter of its 95 %
interval's width (half where there are no samples to pair, since the tolerance alone must carry the
noise there) and, for a count (a whole number without an interval), 1.
Measured: twice the largest absolute deviation from the pinned value that the other runs of the same
job show. A few runs may agree in one row by chance, so all rows of one metric of a method (20 or
more) give a scale: the 95 % quantile of the deviation divided by the default tolerance. A tolerance
is not below twice the scale times the default, nor below the floor, a fifth of the default.
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

# Default: shares of the value, and of the interval's width with and without samples; of a count.
RELATIVE = 0.05
PAIRED = 0.25
ALONE = 0.5
COUNT = 1.0
# Measured: times the largest deviation, but not below this share of the default.
FACTOR = 2.0
FLOOR = 0.2
# Of the deviations of all rows of one metric of a method, in units of the default tolerance. Fewer
# rows have no such quantile.
QUANTILE = 0.95
MIN_ROWS = 20
RULE = {
    "default": f"max({RELATIVE:g} |value|, {PAIRED:g} (high - low), or {ALONE:g} (high - low) without samples, "
    f"{COUNT:g} for a count)",
    "floor": f"{FLOOR:g} default",
    "scale": f"{FACTOR:g} default {QUANTILE:g}-quantile(largest |deviation| / default) over the rows of "
    "one metric of the method",
    "spread": f"max({FACTOR:g} largest |deviation| of the spread runs, scale, floor)",
}


def default(pin: Pin, paired: bool) -> float:
    """Tolerance of a row about whose spread nothing is known; NaN where it has no value.

    Args:
        pin: the row.
        paired: whether it has samples to pair.
    """
    if not math.isfinite(pin.value):
        return math.nan
    # NaN where the row has no interval, as for a curve's count or a length.
    width = pin.high - pin.low
    if math.isfinite(width):
        return max(RELATIVE * abs(pin.value), (PAIRED if paired else ALONE) * width)
    # A whole number without an interval is taken for a count: 5 % of a small one is less than 1.
    return max(RELATIVE * abs(pin.value), COUNT if pin.value == round(pin.value) else 0.0)


def deviations(run: PinnedRun, others: Sequence[PinnedRun]) -> dict[Key, float]:
    """The largest absolute deviation of each row that one of the other runs has.

    A tolerance that was measured before counts as the deviation that it came from.

    Args:
        run: the pinned run.
        others: its `counterparts`.

    Returns:
        Key of a row -> deviation in the unit of its value. Rows without a finite deviation are left
        out.
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


def usual(run: PinnedRun, key: Key) -> float:
    """The default tolerance of a row of a run, in the unit of its value.

    Args:
        run: it decides whether the row has samples to pair.
        key: of one of its rows.

    Returns:
        See `default`; NaN where the row has no value.
    """
    return default(run.rows[key], run.series(key) is not None)


def scales(
    runs: Sequence[PinnedRun], gaps: Sequence[Mapping[Key, float]]
) -> dict[tuple[str, str], float]:
    """Quantile of the deviations of all rows of a metric, in units of the default tolerance.

    Args:
        runs: the pinned runs.
        gaps: for each run the `deviations` of its rows, in the same order.

    Returns:
        (method, metric) -> the QUANTILE of the deviations divided by the default tolerance. With
        fewer than MIN_ROWS rows there is none.
    """
    shares: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run, found in zip(runs, gaps):
        for key, gap in found.items():
            tolerance = usual(run, key)
            # The default is 0 where a value without an interval is 0.
            if tolerance > 0:
                shares[run.method, metric_of(key)].append(gap / tolerance)
    return {
        of: float(np.quantile(values, QUANTILE))
        for of, values in shares.items()
        if len(values) >= MIN_ROWS
    }


def metric_of(key: Key) -> str:
    return str(key_fields(key)["metric"])


def measured(
    run: PinnedRun, gaps: Mapping[Key, float], scale: Mapping[tuple[str, str], float]
) -> PinnedRun:
    """The run with measured tolerances; rows without a deviation keep the default.

    A tolerance that a row had before does not become smaller.

    Args:
        run: the pinned run.
        gaps: the largest deviations of its rows.
        scale: of the metrics of all methods; see `scales`.
    """
    rows = {}
    for key, pin in run.rows.items():
        unmeasured = usual(run, key)
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
        # Of equal tolerances the first one.
        origin = max(tolerances, key=lambda name: tolerances[name])
        # Four digits are more than a spread of a few runs is known to.
        tolerance = significant(tolerances[origin], 4)
        rows[key] = replace(pin, tolerance=tolerance, origin=origin)
    return replace(run, rows=rows)


def counterparts(run: PinnedRun, others: Sequence[PinnedRun], where: str) -> list[PinnedRun]:
    """The done runs of the same job with any batch, thread count or hardware.

    They have the run's seed, or other seeds where none has it: with another seed a fit is another
    one, and its deviation many times that of another processor.

    Args:
        run: the pinned run.
        others: the runs of one folder, without `run` itself.
        where: name of the folder, for messages.

    Raises:
        EditbenchError: all are of other code, or one of another metric version: that deviation is
            no noise.
    """
    same = [
        other
        for other in others
        if (other.method, other.attribute) == (run.method, run.attribute)
        and other.status == "done"
        and other.options == run.options
        and other.setting == run.setting
    ]
    # A folder may hold records of older code beside those of the present one; it is an error only
    # where nothing else is left.
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
            # Rows of other harnesses have no version, and NaN is not equal to itself.
            unknown = all(math.isnan(version) for version in versions)
            if versions[0] != versions[1] and not unknown:
                raise EditbenchError(
                    f"{other.run_id} in '{where}' has version {versions[1]:g} of "
                    f"{written_key(key)}, {run.run_id} has {versions[0]:g}: run the jobs again"
                )
    return same


def describe_changes(pairs: Sequence[tuple[PinnedRun, PinnedRun]]) -> dict[str, list[str]]:
    """What differed between each run and its counterpart: {'batch': ['64 -> 7'], 'seed': ['0 -> 1',
    '0 -> 2']}."""
    found: dict[str, set[str]] = {}
    for run, other in pairs:
        for key, value in run.changed.items():
            # The file keeps it, so that a reader knows what the tolerances allow for.
            if other.changed.get(key) != value:
                found.setdefault(key, set()).add(f"{value} -> {other.changed.get(key)}")
    return {key: sorted(values) for key, values in sorted(found.items())}


def measure(
    runs: Sequence[PinnedRun], spreads: Mapping[str, Sequence[PinnedRun]], own: str = ""
) -> tuple[list[PinnedRun], dict]:
    """Tolerances from runs that should agree.

    Args:
        runs: the runs to pin.
        spreads: name of a folder -> its runs.
        own: the folder among them that the pinned runs are of, '' for none. There a run is no
            counterpart of itself: the deviation of a record from itself is no spread.

    Returns:
        The runs with measured tolerances, and what was varied in each folder.

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
    return [measured(run, found, scale) for run, found in zip(runs, gaps)], about
