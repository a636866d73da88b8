"""What a method costs, one row a method, and which methods no other beats in accuracy and cost at
once."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from editbench.report.cells import COLUMNS, Column

# The columns that the main table shows too come from there, so that titles and hints agree.
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
        hint="peak memory of the job's process, or of the GPU",
    ),
)
SUMMED = "means over the attributes of the mean accuracy; peak memory is the maximum"


def cost_table(means: pd.DataFrame) -> pd.DataFrame:
    """The means with the methods that no other beats in accuracy and a cost at once.

    Args:
        means: `editbench.report.means.summary` of one setting.

    Returns:
        The same rows with on_front: the titles of the costs for which no method has both a higher
        accuracy and a lower cost. A floor costs little and reaches little, so it is on no front.
    """
    rivals = means[~means["floor"]]
    fronts = {column.title: set(front(rivals, column)) for column in COSTS}
    named = [
        ", ".join(title for title, methods in fronts.items() if method in methods)
        for method in means["method"]
    ]
    return means.assign(on_front=named)


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
