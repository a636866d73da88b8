"""Which method is ahead: accuracy averaged over attributes, with ties where the paired data cannot
separate two.

Every ranked method is averaged over the same attributes and, within each, over the same starts.
Starts are resampled within their attribute, for all methods at once, so every difference is paired;
p-values are adjusted over all pairs (Holm, 1979). A rank is a range: from one more than the methods
that are separated and ahead, to the number of methods less those that are separated and behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from editbench.report.load import Results
from editbench.report.paired import LEVEL, PER_PAIR, start_values, two_sided
from editbench.stats.intervals import DRAWS, holm, percentiles, resampled_sums

METRIC = "accuracy"
# Share of the attributes that a method must serve: one that serves few would leave the other
# methods few attributes in common.
LEAST = 0.5
COLUMNS = (
    "setting",
    "rank",
    "best_rank",
    "worst_rank",
    "method",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "attributes",
    "n",
    "tied_with",
)


@dataclass(frozen=True)
class Ranking:
    """table: columns COLUMNS, best first (empty where nothing can be ranked); attributes: those
    averaged over; left: method -> why it is not ranked; note: why nothing is ranked, or ''."""

    table: pd.DataFrame
    attributes: tuple[str, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    note: str = ""


def ranking(results: Results, metric: str = METRIC) -> Ranking:
    """Rank the methods of one setting.

    Methods that serve fewer than half of the attributes asked are left out and named; the others
    are averaged over the attributes that all of them serve, and there over the starts that all of
    them have.
    """
    empty = pd.DataFrame(columns=list(COLUMNS))
    done = results.runs[results.runs["status"] == "done"]
    # A value a start, since only the same starts can be paired.
    values = start_values(results, (metric,))
    series = {
        (row["label"], row["attribute"]): values[row["run_id"], metric]
        for row in done.to_dict("records")
        if (row["run_id"], metric) in values
    }
    # Of all runs, those that were skipped or failed too: not serving an attribute counts.
    asked = sorted(set(results.runs["attribute"]))
    served = {
        method: {attribute for name, attribute in series if name == method}
        for method in sorted(set(results.runs["label"]))
    }
    left = tuple(
        (method, f"serves {len(own)} of {len(asked)} attributes")
        for method, own in served.items()
        if len(own) < LEAST * len(asked) or not own
    )
    methods = [method for method in served if method not in dict(left)]
    if len(methods) < 2:
        return Ranking(empty, left=left, note="fewer than two methods serve half of the attributes")
    # Means over other attributes would compare the attributes and not the methods.
    shared = [a for a in asked if all(a in served[method] for method in methods)]
    # dropna leaves the starts that all methods have; sorted, as draws go by place.
    tables = {
        a: pd.DataFrame({m: series[m, a] for m in methods}).dropna().sort_index() for a in shared
    }
    tables = {attribute: table for attribute, table in tables.items() if len(table)}
    if not tables:
        return Ranking(
            empty, left=left, note="no attribute is served by all of these methods on common starts"
        )
    table = _ranked(tables, methods).assign(setting=str(results.runs["setting"].iloc[0]))
    return Ranking(table[list(COLUMNS)], tuple(tables), left)


def lines(found: Ranking) -> list[str]:
    """What a reader must know beside the table, a sentence each."""
    told = [f"not ranked: {method}: {why}" for method, why in found.left]
    if found.note:
        return [f"no ranking: {found.note}", *told]
    n = int(found.table["n"].iloc[0])
    return [
        f"ranking: mean accuracy over {', '.join(found.attributes)}, the same {n} starts for every "
        f"method; a rank is a range where the paired data leave it open (Holm, {LEVEL:g})",
        *told,
    ]


def _ranked(tables: dict[str, pd.DataFrame], methods: list[str]) -> pd.DataFrame:
    pairs = list(combinations(range(len(methods)), 2))
    draws = max(DRAWS, PER_PAIR * len(pairs))
    # Each attribute weighs the same, however many starts it has.
    means = np.mean([table.to_numpy(np.float64).mean(0) for table in tables.values()], 0)
    # A stream an attribute: the same draws in two would tie their noise together.
    resampled = np.mean(
        [
            resampled_sums(table.to_numpy(np.float64), draws, 0, f"ranking {attribute}")
            / len(table)
            for attribute, table in tables.items()
        ],
        0,
    )
    # Rows are drawn whole, so the draws of all methods are of the same starts.
    low, high = percentiles(resampled)
    a, b = np.array(pairs).T
    adjusted = holm(two_sided(resampled[:, a] - resampled[:, b], means[a] - means[b]))
    apart = np.zeros((len(methods),) * 2, bool)
    apart[a, b] = apart[b, a] = adjusted < LEVEL
    # Row k counts those that are separated from method k, on either side of it.
    ahead = (apart & (means[None] > means[:, None])).sum(1)
    behind = (apart & (means[None] < means[:, None])).sum(1)
    # Equal means are ordered by name, so that the table does not depend on the runs' order.
    order = sorted(range(len(methods)), key=lambda k: (-means[k], methods[k]))
    rows = []
    for k in order:
        # As few as are surely ahead, as many as are not surely behind.
        best, worst = 1 + int(ahead[k]), len(methods) - int(behind[k])
        rows.append(
            {
                "rank": str(best) if best == worst else f"{best}–{worst}",
                "best_rank": best,
                "worst_rank": worst,
                "method": methods[k],
                "accuracy": float(means[k]),
                "accuracy_low": float(low[k]),
                "accuracy_high": float(high[k]),
                "attributes": len(tables),
                "n": sum(map(len, tables.values())),
                "tied_with": ", ".join(methods[j] for j in order if j != k and not apart[k, j]),
            }
        )
    return pd.DataFrame(rows)
