"""What a method costs, one row a method, and which methods no other beats in accuracy and cost at
once."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from editbench.report.cells import COLUMNS, Column
from editbench.report.ranking import Ranking
from editbench.report.tables import summary

# The columns that the main table shows too come from there, so that titles and hints agree.
COSTS = (
    *(
        column
        for column in COLUMNS
        if column.key in ("fit_seconds", "generator_calls", "labels_used", "edits_per_second")
    ),
    Column("walk_seconds", "walk s", None, False, False, "seconds of all walks of an attribute"),
    Column(
        "peak_memory_mb",
        "peak MiB",
        None,
        False,
        False,
        "largest memory of the job's process, or of the GPU",
    ),
)
SUMMED = (
    "means over the attributes of the ranking, or served where not ranked; "
    "peak memory is the largest"
)


def cost_table(table: pd.DataFrame, ranked: Ranking | None = None) -> pd.DataFrame:
    """One row a method, in the order of `summary`.

    Columns: setting, method, served, asked, accuracy, accuracy_low, accuracy_high, ad_at, then
    COSTS and on_front (the titles of the costs for which no method has both a higher accuracy and a
    lower cost).

    The costs are means over the attributes a method serves, but for peak memory, of which the
    largest is told. With `ranked`, accuracy is the ranking's and the costs are of its attributes,
    and a method that is not ranked has no accuracy; without, accuracy is the mean over the
    attributes served.
    """
    # The costs of `summary` are over all attributes served; here they are taken anew, over the
    # attributes of the ranking.
    means = summary(table)[
        ["setting", "method", "served", "asked", "accuracy", "ad_at", "variant_of"]
    ]
    means = means.assign(accuracy_low=np.nan, accuracy_high=np.nan)
    done = table[table["status"] == "done"]
    if ranked is not None and len(ranked.table):
        numbers = ranked.table.set_index("method")
        for name in ("accuracy", "accuracy_low", "accuracy_high"):
            means[name] = means["method"].map(numbers[name])
        # Accuracy and cost must be of the same runs. A method that is not ranked may serve none of
        # these attributes and keeps its own.
        listed = set(numbers.index)
        done = done[done["attribute"].isin(ranked.attributes) | ~done["method"].isin(listed)]
    for column in COSTS:
        groups = done.groupby(["setting", "method"])[column.key]
        # Memory is what a machine must have, so a mean would say too little.
        value = (groups.max() if column.key == "peak_memory_mb" else groups.mean()).rename(
            column.key
        )
        # A left join keeps the methods that finished no run; their costs stay unknown.
        means = means.merge(value.reset_index(), on=["setting", "method"], how="left")
    means["on_front"] = [
        ", ".join(column.title for column in COSTS if method in front(means, column))
        for method in means["method"]
    ]
    return means


def front(means: pd.DataFrame, column: Column) -> Collection[str]:
    """Methods of one setting that no other beats in accuracy without costing more, or in cost
    without losing accuracy, cheapest first."""
    # A point with one number missing can neither beat nor be beaten.
    known = means[np.isfinite(means["accuracy"]) & np.isfinite(means[column.key])]
    # Of a rate (edits a second) more is better, so its sign is turned.
    cost = -known[column.key] if column.better else known[column.key]
    # Of equal costs the most accurate comes first, and the others are then beaten by it.
    order = known.assign(cost=cost).sort_values(["cost", "accuracy"], ascending=[True, False])
    best, kept = -np.inf, []
    for method, accuracy, price in zip(order["method"], order["accuracy"], order["cost"]):
        if accuracy > best:
            best, last = accuracy, price
        elif not (accuracy == best and price == last):  # equal in both: neither beats the other
            continue
        kept.append(str(method))
    return kept
