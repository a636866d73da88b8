"""Differences between all pairs of methods on the starts that they share.

If several seeds of a method are pooled, the value of a start is the mean over the seeds, and the
method's draws include the variance that its seeds add on the shared starts
(`editbench.stats.intervals.seed_draws`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from editbench.report.load import Results
from editbench.stats.intervals import (
    DRAWS,
    SeedSpread,
    holm,
    percentiles,
    resampled_means,
    seed_draws,
    seed_spread,
    two_sided,
)
from editbench.walk.rows import KEY_COLUMNS, key_of

COLUMNS = (
    "setting",
    "attribute",
    "metric",
    "variant",
    "network",
    "x",
    "a",
    "b",
    "n",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
)
# Draws per pair. The smallest possible p-value, times the pairs of its family, must be well below
# 0.05.
PER_PAIR = 100
# Least number of starts of a test or interval. With fewer the draws vary too little: of two starts,
# all draws have the sign of the differences in half of all cases, by chance. From 10 on, equal methods
# are separated in fewer than one case in ten (tests/test_ranking.py).
FEWEST = 10
SIGNIFICANCE = 0.05  # two methods are separated if their adjusted p-value is below this


def paired_table(
    results: Results, metrics: tuple[str, ...] = ("accuracy", "ad_at")
) -> pd.DataFrame:
    """Differences of all pairs of methods, by a paired bootstrap.

    All pairs of a family (one setting, attribute and number) share the resampled starts. Starts
    that one of the two methods lacks are left out.

    Args:
        results: of any settings, with seeds pooled.
        metrics: names in the rows of the metrics, in the order of the table.

    Returns:
        One row per attribute, number and pair of methods, with the columns COLUMNS. difference:
        mean of a - b over the n starts that both have; low and high: its 95 % interval; p:
        two-sided; p_holm: adjusted over the pairs of the family (Holm). With fewer than FEWEST
        common starts there is only the difference; such a pair does not count for the adjustment.
    """
    if results.samples.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    values = keyed_values(results, metrics)
    # Keys may contain None, which cannot be compared with a number, so they are sorted as text.
    keys = sorted({key for _, key in values}, key=lambda key: (metrics.index(key[0]), str(key)))
    rows = []
    # A family of tests is the pairs of one attribute and number.
    for (setting, attribute), group in results.runs.groupby(["setting", "attribute"]):
        runs = sorted(zip(group["label"], group["run_id"]))
        for key in keys:
            having = {label: values[run, key] for label, run in runs if (run, key) in values}
            by_seed = {
                label: results.by_seed[run, key]
                for label, run in runs
                if (run, key) in results.by_seed
            }
            fields = dict(zip(KEY_COLUMNS, key))
            about = [fields[name] for name in ("metric", "variant", "network", "x")]
            table = pd.DataFrame(having).sort_index()
            for pair, found in paired_differences(table, by_seed).items():
                rows.append((setting, attribute, *about, *pair, *found))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def keyed_values(results: Results, metrics: tuple[str, ...]) -> dict[tuple[str, tuple], pd.Series]:
    """The samples of some metrics, one series for each number of a run.

    Args:
        results: of any settings.
        metrics: names in the rows of the metrics.

    Returns:
        (run_id, `key_of` of the number) -> values indexed by start.
    """
    rows = results.samples[results.samples["metric"].isin(metrics)]
    found = {}
    for (run, *_), part in rows.groupby(["run_id", *KEY_COLUMNS], dropna=False, sort=False):
        # Group labels contain NaN, which is not equal to itself; key_of converts it to None.
        key = key_of(part.iloc[0].to_dict())
        found[str(run), key] = part.drop_duplicates("start").set_index("start")["value"]
    return found


def start_values(
    results: Results, metric: str, effects: Mapping[str, float]
) -> dict[str, pd.Series]:
    """run_id -> values of a number indexed by start.

    Args:
        results: of one setting.
        metric: the number.
        effects: run_id -> the effect at which to read it, if it was measured at several.
    """
    rows = results.samples[results.samples["metric"] == metric]
    effect = rows["run_id"].map(dict(effects))
    rows = rows[~np.isfinite(rows["x"]) | (rows["x"] == effect)]
    return {
        str(run): part.drop_duplicates("start").set_index("start")["value"]
        for run, part in rows.groupby("run_id")
    }


def paired_differences(
    table: pd.DataFrame, by_seed: Mapping[str, pd.DataFrame] | None = None, draws: int = DRAWS
) -> dict[tuple[str, str], tuple[int, float, float, float, float, float]]:
    """Paired differences of all pairs of columns.

    Args:
        table: (starts, methods), NaN if a method lacks a start.
        by_seed: method -> values (starts, seeds) whose means over the seeds are its column; only for
            several seeds.
        draws: least number of bootstrap draws; many pairs need more.

    Returns:
        (a, b) -> n, difference, low, high, p, adjusted p. The last four are NaN with fewer than
        FEWEST common starts.
    """
    pairs = list(combinations(table.columns, 2))
    if not pairs:
        return {}
    wide = table.to_numpy(np.float64)
    # The columns of both methods of each pair.
    left, right = np.array(list(combinations(range(wide.shape[1]), 2))).T
    gaps = wide[:, left] - wide[:, right]
    # Each pair is compared on its own common starts, but all pairs share the draws.
    held = np.isfinite(gaps)
    used = held.any(1)
    # Starts that no pair has in common are not resampled.
    gaps = gaps[used]
    n = held.sum(0)
    if not len(gaps):
        return {pair: (0, *(float("nan"),) * 5) for pair in pairs}
    # For a pair with few common starts, a draw may contain none of them and is then NaN.
    means = resampled_means(gaps, max(draws, PER_PAIR * len(pairs)), stream="paired")
    means += _seed_part(table.index, pairs, held, by_seed or {}, len(means))
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.where(held[used], gaps, 0.0).sum(0) / n
    low, high = percentiles(means)
    p = two_sided(means, difference)
    few = n < FEWEST
    for values in (low, high, p):
        values[few] = np.nan
    found: dict[tuple[str, str], tuple[int, float, float, float, float, float]] = {}
    for k, (pair, adjusted) in enumerate(zip(pairs, holm(p))):
        found[pair] = (
            int(n[k]),
            float(difference[k]),
            float(low[k]),
            float(high[k]),
            float(p[k]),
            float(adjusted),
        )
    return found


def _seed_part(
    starts: pd.Index,
    pairs: list[tuple[str, str]],
    held: np.ndarray,
    by_seed: Mapping[str, pd.DataFrame],
    draws: int,
) -> np.ndarray:
    """Deviations due to seeds, for the draws of each difference.

    Args:
        starts: (n,) of the rows of `held`.
        pairs: of methods.
        held: (n, pairs) bool, the starts that both methods of a pair have.
        by_seed: as for `paired_differences`.
        draws: number of draws.

    Returns:
        (draws, pairs).
    """
    found = np.zeros((draws, len(pairs)))
    for name, table in by_seed.items():
        values = table.reindex(starts).to_numpy(np.float64)
        # One random stream per method, since its seeds are the same in every pair.
        unit = seed_draws(SeedSpread(1.0, values.shape[1]), draws, "paired", name)
        for k, (a, b) in enumerate(pairs):
            if name in (a, b):
                spread = seed_spread(values[held[:, k]])
                deviation = np.sqrt(spread.variance) * unit
                found[:, k] += deviation if name == a else -deviation
    return found


def find_leaders(
    differences: pd.DataFrame,
    records: Iterable[Mapping[Any, Any]],
    key: str,
    better: bool,
    floors: Collection[str],
) -> set[str]:
    """The methods that lead: the best one and all that are not behind it.

    Their numbers are bold if they are also clear of the floors, see `cells.is_bold`.

    A method is behind the best one if the paired test finds it worse, or if their intervals do not
    overlap. The latter matters for methods with few seeds: after adjustment for all pairs, their
    tests have little power, and a bold number far outside the best one's interval would mislead.

    The numbers of AD are each over a method's own starts, those that reach the effect, and the test
    is over the common ones. A method may thus have the best number because it reaches the effect
    from easy starts only. If the test finds the best one worse than another method, it does not
    lead, and the other one is not behind it.

    Args:
        differences: rows of `paired_table` for one attribute and metric.
        records: rows of the main table for one attribute. Rows that were not run or have a note are
            ignored.
        key: column of the number, such as 'accuracy'; its interval is in `key_low` and `key_high`.
        better: whether higher is better.
        floors: methods that never lead.

    Returns:
        Empty if only floors are behind the best one.
    """
    finite = {}
    for record in records:
        is_read = record["status"] == "done" and not record.get(f"{key}_note")
        if is_read and np.isfinite(record[key]) and record["method"] not in floors:
            finite[str(record["method"])] = record
    if len(finite) < 2 or differences.empty:
        return set()
    sign = 1 if better else -1
    best = min(finite, key=lambda method: (-sign * finite[method][key], method))
    apart = differences[differences["p_holm"] < SIGNIFICANCE]
    apart = apart[apart["a"].isin(list(finite)) & apart["b"].isin(list(finite))]
    behind = set()
    found_better = set()
    for pair in apart.to_dict("records"):
        # A pair is stored once, so the best method may be on either side.
        if best in (pair["a"], pair["b"]):
            worse, other = pair["a"], pair["b"]
            if sign * pair["difference"] > 0:
                worse, other = other, worse
            behind.add(worse)
            found_better.add(other)
    for method in finite.keys() - found_better:
        record = finite[method]
        # Comparisons with NaN, for a missing interval, are false.
        above = record[f"{key}_low"] > finite[best][f"{key}_high"]
        below = record[f"{key}_high"] < finite[best][f"{key}_low"]
        if above or below:
            behind.add(method)
    return set(finite) - behind if behind else set()
