"""The costs of methods, and the methods on the Pareto front of accuracy and a cost."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd

from editbench.report.cells import COLUMNS, Column

# Columns that the main table also shows are taken from there, so that titles and hints agree.
COSTS = (
    *(
        column
        for column in COLUMNS
        if column.key in ("fit_seconds", "generator_calls", "labels_used", "edits_per_second")
    ),
    Column(
        "walk_seconds",
        "walk s",
        digits=None,
        better=False,
        hint="seconds of all walks of one attribute",
    ),
    Column(
        "peak_memory_mb",
        "peak MiB",
        digits=None,
        better=False,
        hint="peak memory of a job on its GPU",
    ),
)


def describe_costs(columns: Iterable[Column]) -> str:
    """What each number of the table of costs is over.

    Args:
        columns: the costs that are shown.
    """
    text = "means over the attributes of the mean accuracy"
    if any(column.key == "peak_memory_mb" for column in columns):
        text += "; peak memory is the maximum"
    return text


def cost_table(means: pd.DataFrame) -> pd.DataFrame:
    """The means of methods, with the Pareto fronts that they are on.

    Args:
        means: `editbench.report.means.summary` of one setting.

    Returns:
        The same rows with the column on_front: the titles of the costs for which the method is on
        the `front`. Floors are left out, since they cost little and reach little.
    """
    rivals = means[~means["floor"]]
    fronts = {column.title: set(front(rivals, column)) for column in COSTS}
    named = [
        ", ".join(title for title, methods in fronts.items() if method in methods)
        for method in means["method"]
    ]
    return means.assign(on_front=named)


def front(means: pd.DataFrame, column: Column) -> Collection[str]:
    """The Pareto front of accuracy and a cost: methods of one setting, cheapest first.

    Args:
        means: one row per method, with `accuracy` and the column of the cost.
        column: of the cost. If higher is better, as for a rate, its highest value is the cheapest.

    Returns:
        Names of the methods for which no other one is at least as accurate and as cheap, and better
        in one of the two. Methods without one of the two numbers are left out.
    """
    known = means[np.isfinite(means["accuracy"]) & np.isfinite(means[column.key])]
    # For a rate (edits per second) more is better, so its sign is reversed.
    cost = -known[column.key] if column.better else known[column.key]
    # Among equal costs the most accurate comes first, so that it dominates the others.
    order = known.assign(cost=cost).sort_values(["cost", "accuracy"], ascending=[True, False])
    kept = []
    best = -np.inf
    last = -np.inf
    for method, accuracy, price in zip(order["method"], order["accuracy"], order["cost"]):
        # Of two methods that are equal in both, neither dominates.
        equal = accuracy == best and price == last
        if accuracy > best or equal:
            kept.append(str(method))
            best = accuracy
            last = price
    return kept
