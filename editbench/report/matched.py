"""Methods at matched effect: every number of editbench.metrics.matched_effect.metric beside one another, and paired."""

from __future__ import annotations

import numpy as np
import pandas as pd

from editbench.report.load import Results
from editbench.report.paired import paired

PREFIX = "matched_"


def matched_table(results: Results) -> pd.DataFrame:
    """One row an attribute, effect and method: setting, attribute, effect, method, n (starts that reach it), then for
    every number its value, `_low` and `_high`; values with a note are left out. Empty where nothing was measured."""
    rows = results.rows[
        results.rows["metric"].str.startswith(PREFIX) & np.isfinite(results.rows["value"])
    ]
    if rows.empty:
        return pd.DataFrame()
    runs = results.runs[["run_id", "setting", "label", "attribute"]].rename(
        columns={"label": "method"}
    )
    rows = rows[rows["note"] == ""].merge(runs, on="run_id").rename(columns={"x": "effect"})
    key = ["setting", "attribute", "effect", "method"]
    wide = rows.pivot_table(
        index=key, columns="metric", values=["value", "low", "high"], aggfunc="first"
    )
    names = [name for name in dict.fromkeys(results.rows["metric"]) if name in set(rows["metric"])]
    counts = rows[rows["metric"] != f"{PREFIX}reached"].groupby(key)["n"].max()
    table = pd.DataFrame({"n": counts.reindex(wide.index)})
    for name in names:
        short = name.removeprefix(PREFIX)
        table[short] = wide["value", name]
        table[f"{short}_low"], table[f"{short}_high"] = wide["low", name], wide["high", name]
    return table.reset_index()


def matched_differences(results: Results) -> pd.DataFrame:
    """Paired differences of every two methods at each effect, as `paired` gives them; the metric is NAME@x."""
    names = sorted(
        {str(name) for name in results.samples["metric"] if str(name).startswith(PREFIX)}
    )
    return paired(results, tuple(names)) if names else pd.DataFrame()
