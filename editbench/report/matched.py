"""Methods at matched effect: all numbers of the metric matched_effect, and their differences."""

from __future__ import annotations

import numpy as np
import pandas as pd

from editbench.figures.drawing import with_methods
from editbench.report.load import Results
from editbench.report.paired import paired_table

PREFIX = "matched_"
REACHED = "matched_reached"  # a share of all starts; the others are over starts with the effect


def matched_table(results: Results) -> pd.DataFrame:
    """One row per attribute, effect and method; values with a note are left out.

    Returns:
        Columns setting, attribute, effect, method, n (starts that reach the effect), then for every
        number its value, `_low` and `_high`. Empty if nothing was measured.
    """
    rows = results.rows
    rows = rows[rows["metric"].str.startswith(PREFIX) & np.isfinite(rows["value"])]
    if rows.empty:
        return pd.DataFrame()
    # The name of a network is part of the heading, to separate similarities by different networks.
    names = rows["metric"].str.removeprefix(PREFIX)
    names = names.where(rows["network"] == "", names + " (" + rows["network"] + ")")
    # In these rows, x is the effect.
    rows = rows.assign(name=names, effect=rows["x"])
    kept = rows[rows["note"] == ""]
    kept = with_methods(kept, results.runs, "setting")
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
    """Paired differences of all pairs of methods at each effect, as in `paired`."""
    metrics = sorted(set(results.samples["metric"].astype(str)))
    names = tuple(name for name in metrics if name.startswith(PREFIX))
    return paired_table(results, names) if names else pd.DataFrame()
