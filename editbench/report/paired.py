"""Differences between every two methods on the starts they share."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from editbench.report.load import Results
from editbench.statistics import holm, paired_difference

COLUMNS = ("setting", "attribute", "metric", "a", "b", "n", "difference", "low", "high", "p", "p_holm")
DRAWS = 2000


def paired(results: Results, metrics: tuple[str, ...] = ("accuracy", "ad_at")) -> pd.DataFrame:
    """One row an attribute, metric and pair of methods, columns COLUMNS.

    difference: mean of a - b over the n starts both have, with its 95 % interval; p: two-sided, p_holm: adjusted over
    the pairs of the same setting, attribute and metric (Holm). Starts missing in one of the two are left out.
    """
    if results.samples.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    values = {key: part.drop_duplicates("start").set_index("start")["value"] for key, part in
              results.samples[results.samples["metric"].isin(metrics)].groupby(["run_id", "metric"])}
    rows = []
    for (setting, attribute), group in results.runs.groupby(["setting", "attribute"]):
        runs = sorted(zip(group["label"], group["run_id"]))
        for metric in metrics:
            having = [(label, values[run, metric]) for label, run in runs if (run, metric) in values]
            for (a, left), (b, right) in combinations(having, 2):
                found = paired_difference(left, right, draws=DRAWS)
                rows.append((setting, attribute, metric, a, b, found.n, found.difference, found.low, found.high,
                             found.p, np.nan))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for _, family in table.groupby(["setting", "attribute", "metric"]):
        table.loc[family.index, "p_holm"] = holm(family["p"].to_numpy(np.float64))
    return table
