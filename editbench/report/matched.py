"""Methods at matched effect: every number of the metric matched_effect side by side, and paired."""

from __future__ import annotations

import numpy as np
import pandas as pd

from editbench.report.load import Results
from editbench.report.paired import paired_table

PREFIX = "matched_"
REACHED = "matched_reached"  # a share of all starts; the others are of those that reach the effect


def matched_table(results: Results) -> pd.DataFrame:
    """One row an attribute, effect and method; values with a note are left out.

    Returns:
        Columns setting, attribute, effect, method, n (starts that reach it), then for every number
        its value, `_low` and `_high`. Empty where nothing was measured.
    """
    rows = results.rows
    rows = rows[rows["metric"].str.startswith(PREFIX) & np.isfinite(rows["value"])]
    if rows.empty:
        return pd.DataFrame()
    # The network is part of the heading: likeness by two networks is two numbers.
    names = rows["metric"].str.removeprefix(PREFIX)
    names = names.where(rows["network"] == "", names + " (" + rows["network"] + ")")
    # The effect of these rows stands in x, the place on the curve.
    rows = rows.assign(name=names, effect=rows["x"])
    kept = rows[rows["note"] == ""]
    runs = results.runs[["run_id", "setting", "label", "attribute"]].rename(
        columns={"label": "method"}
    )
    kept = kept.merge(runs, on="run_id")
    key = ["setting", "attribute", "effect", "method"]
    wide = kept.pivot_table(
        index=key, columns="name", values=["value", "low", "high"], aggfunc="first"
    )
    counts = kept[kept["metric"] != REACHED].groupby(key)["count"].max()
    table = pd.DataFrame({"n": counts.reindex(wide.index)})
    for name in dict.fromkeys(rows["name"]):
        if name in set(kept["name"]):
            table[name] = wide["value", name]
            table[f"{name}_low"] = wide["low", name]
            table[f"{name}_high"] = wide["high", name]
    return table.reset_index()


def matched_differences(results: Results) -> pd.DataFrame:
    """Paired differences of every two methods at each effect, as `paired` gives them."""
    metrics = sorted(set(results.samples["metric"].astype(str)))
    names = tuple(name for name in metrics if name.startswith(PREFIX))
    return paired_table(results, names) if names else pd.DataFrame()
