"""Differences between every two methods on the starts they share.

Where several seeds of a method are pooled, the value of a start is the mean over the seeds, and the
draws of a method carry what the choice of its seeds adds (`editbench.stats.intervals.seed_draws`).
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
# Draws a pair: the smallest p, times the pairs of its family, must stay well below 0.05.
PER_PAIR = 100
FEWEST = 2  # starts of a test
SIGNIFICANCE = 0.05  # of the adjusted p-value: below it two methods are separated


def paired_table(
    results: Results, metrics: tuple[str, ...] = ("accuracy", "ad_at")
) -> pd.DataFrame:
    """Differences of every two methods.

    It is a paired bootstrap, with the starts of a family resampled once for all of its pairs. Starts
    missing in one of the two are left out.

    Returns:
        One row an attribute, number and pair of methods, columns COLUMNS. difference: mean of a - b
        over the n starts both have, low and high: its 95 % interval; p: two-sided, p_holm: adjusted
        over the pairs of the same setting, attribute and number (Holm).
    """
    if results.samples.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    values = keyed_values(results, metrics)
    spreads = seed_spreads(results, metrics)
    # None in a key cannot be compared with a number, so keys are sorted as text.
    keys = sorted({key for _, key in values}, key=lambda key: (metrics.index(key[0]), str(key)))
    rows = []
    # One family of tests: Holm adjusts over the pairs of an attribute and number.
    for (setting, attribute), group in results.runs.groupby(["setting", "attribute"]):
        runs = sorted(zip(group["label"], group["run_id"]))
        for key in keys:
            having = {label: values[run, key] for label, run in runs if (run, key) in values}
            seeds = {label: spreads[run, key] for label, run in runs if (run, key) in spreads}
            fields = dict(zip(KEY_COLUMNS, key))
            about = [fields[name] for name in ("metric", "variant", "network", "x")]
            for pair, found in paired_differences(pd.DataFrame(having).sort_index(), seeds).items():
                rows.append((setting, attribute, *about, *pair, *found))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def keyed_values(results: Results, metrics: tuple[str, ...]) -> dict[tuple[str, tuple], pd.Series]:
    """(run_id, key of the samples) -> values indexed by start."""
    rows = results.samples[results.samples["metric"].isin(metrics)]
    found = {}
    for (run, *_), part in rows.groupby(["run_id", *KEY_COLUMNS], dropna=False, sort=False):
        # Group labels hold NaN, which is not equal to itself; key_of makes it None.
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
        effects: run_id -> the effect at which it is read, where it is read at several.
    """
    rows = results.samples[results.samples["metric"] == metric]
    effect = rows["run_id"].map(dict(effects))
    rows = rows[~np.isfinite(rows["x"]) | (rows["x"] == effect)]
    return {
        str(run): part.drop_duplicates("start").set_index("start")["value"]
        for run, part in rows.groupby("run_id")
    }


def seed_spreads(results: Results, metrics: tuple[str, ...]) -> dict[tuple[str, tuple], SeedSpread]:
    """(run_id, key of the number) -> what its seeds add to the variance; several seeds only."""
    rows = results.rows[results.rows["metric"].isin(metrics) & (results.rows["seeds"] > 1)]
    return {
        (str(row["run_id"]), key_of(row)): SeedSpread(row["seed_variance"], int(row["seeds"]))
        for row in rows.to_dict("records")
    }


def paired_differences(
    table: pd.DataFrame, spreads: Mapping[str, SeedSpread] | None = None, draws: int = DRAWS
) -> dict[tuple[str, str], tuple[int, float, float, float, float, float]]:
    """Paired differences of every two columns.

    Args:
        table: (starts, methods), NaN where a method lacks a start.
        spreads: method -> what its seeds add to the variance of its mean; none where it has one.
        draws: of the bootstrap; more are taken where there are many pairs.

    Returns:
        (a, b) -> n, difference, low, high, p, adjusted p.
    """
    pairs = list(combinations(table.columns, 2))
    if not pairs:
        return {}
    wide = table.to_numpy(np.float64)
    # The places of both methods of each pair.
    left, right = np.array(list(combinations(range(wide.shape[1]), 2))).T
    gaps = wide[:, left] - wide[:, right]
    # Each pair is compared on its own common starts, though all pairs share the draws.
    held = np.isfinite(gaps)
    used = held.any(1)
    # A start that no pair has would only dilute the resampling.
    gaps = gaps[used]
    n = held.sum(0)
    if not len(gaps):
        return {pair: (0, *(float("nan"),) * 5) for pair in pairs}
    # A draw may hold no start of a pair that shares few; it is NaN and handled below.
    means = resampled_means(gaps, max(draws, PER_PAIR * len(pairs)), stream="paired")
    means += _seed_part(pairs, len(means), spreads or {})
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.where(held[used], gaps, 0.0).sum(0) / n
    low, high = percentiles(means)
    p = two_sided(means, difference)
    # Resampling one start gives that start again: it says nothing of others.
    alone = n < FEWEST
    for values in (low, high, p):
        values[alone] = np.nan
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
    pairs: list[tuple[str, str]], draws: int, spreads: Mapping[str, SeedSpread]
) -> np.ndarray:
    """(draws, pairs) what the seeds add to the draws of each difference."""
    # One stream a method: its seeds are the same in every pair.
    own = {
        name: seed_draws(spreads.get(name, SeedSpread()), draws, "paired", name)
        for name in {name for pair in pairs for name in pair}
    }
    return np.stack([own[a] - own[b] for a, b in pairs], 1)


def find_leaders(
    differences: pd.DataFrame,
    records: Iterable[Mapping[Any, Any]],
    key: str,
    better: bool,
    floors: Collection[str],
) -> set[str]:
    """The methods in bold: the best one and all that are not behind it.

    A method is behind the best where the paired test separates the two, or where their intervals do
    not overlap. The second is for methods of few seeds: their test has little power after it is
    adjusted for all pairs, and a bold number far outside the best's interval would mislead.

    Args:
        differences: rows of `paired_table` of one attribute and metric.
        records: rows of the main table, of one attribute; what was not run, or has a note, is no
            candidate.
        key: of the number, such as 'accuracy'; its interval is in `key_low` and `key_high`.
        better: whether higher is better.
        floors: methods that are never bold.

    Returns:
        Empty where no other method is behind the best but floors: there is then no best to show.
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
    # A pair is stored once, so the best may stand on either side.
    behind = set(apart.loc[apart["a"] == best, "b"]) | set(apart.loc[apart["b"] == best, "a"])
    for method, record in finite.items():
        # Comparisons with NaN, which is no interval, are false.
        above = record[f"{key}_low"] > finite[best][f"{key}_high"]
        below = record[f"{key}_high"] < finite[best][f"{key}_low"]
        if above or below:
            behind.add(method)
    return set(finite) - behind if behind & set(finite) else set()
