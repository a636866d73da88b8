"""Accuracy at the first boundary crossing (GradCtrl, Chen et al. 2022, Table 1).

Each start is walked until the judge first gives it the target class. Definitions, where the paper leaves room:

- success: the walk crossed; the label is read on the decoded, stopped sample.
- accuracy: it crossed and every other attribute kept the class it had at step 0.
- A walk that never crosses, or that turns NaN or infinite before it does, is a failure of both kinds: it stays in the
  denominator, since leaving it out would reward an editor for diverging.
- Overshoot is part of the editor: the first whole step beyond the boundary counts as it is.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from editbench.stats.intervals import bootstrap_mean, median_interval, wilson
from editbench.walk.metric import ROW_COLUMNS, SAMPLE_COLUMNS, Metric, MetricResult, row
from editbench.walk.trajectory import Trajectories


class CrossingAccuracy(Metric):
    """Rows: accuracy and success_rate (shares of all starts, Wilson intervals), off_target_flips (mean number of other
    labels changed, over crossed starts, bootstrap interval), path_length (median over crossed starts in the editor's
    unit, order-statistic interval). Samples: accuracy and success_rate, 0 or 1 a start."""

    name = "crossing_accuracy"
    version = 1
    citation = "Chen, Jiang, Duke, Zhao & Aarabi: GradCtrl, ECCV 2022, Table 1"
    produces = {
        "accuracy": True,
        "success_rate": True,
        "off_target_flips": False,
        "path_length": False,
    }

    def update(self, trajectories: Trajectories) -> pd.DataFrame:
        """One row a start: success, accuracy (0 or 1), flips and path (NaN where the walk did not cross)."""
        table = trajectories.table
        begins = np.flatnonzero(table["step"].to_numpy() == 0)
        sound = table["finite"].to_numpy(bool) & np.isfinite(trajectories.logits).all(1)
        stops = np.flatnonzero(table["stopped"].to_numpy(bool) & sound)
        firsts = trajectories.first_row[stops]
        others = np.array(
            [name != trajectories.attribute for name in trajectories.attributes.names], bool
        )
        changed = trajectories.labels[stops] != trajectories.labels[firsts]
        flips = np.full(len(begins), np.nan)
        path = np.full(len(begins), np.nan)
        start = np.searchsorted(begins, firsts)
        flips[start] = changed[:, others].sum(1)
        path[start] = table["path"].to_numpy(np.float64)[stops]
        return pd.DataFrame(
            {
                "start": table["start"].to_numpy(np.int64)[begins],
                "success": np.isfinite(flips).astype(np.float64),
                "accuracy": (flips == 0).astype(np.float64),
                "flips": flips,
                "path": path,
            }
        )

    def compute(self, stats: pd.DataFrame) -> MetricResult:
        stats = stats.sort_values("start", kind="stable", ignore_index=True)
        n, crossed = len(stats), stats[stats["success"] > 0]
        rows = []
        for name, column in (("accuracy", "accuracy"), ("success_rate", "success")):
            hits = int(stats[column].sum())
            rows.append(
                row(
                    name,
                    hits / n if n else float("nan"),
                    n,
                    *wilson(hits, n),
                    note=_empty(n, "starts"),
                )
            )
        count, note = len(crossed), _empty(len(crossed), "crossed starts")
        flips, path = crossed["flips"].to_numpy(np.float64), crossed["path"].to_numpy(np.float64)
        rows.append(
            row(
                "off_target_flips",
                float(flips.mean()) if count else float("nan"),
                count,
                *bootstrap_mean(flips),
                note=note,
            )
        )
        rows.append(
            row(
                "path_length",
                float(np.median(path)) if count else float("nan"),
                count,
                *median_interval(path),
                note=note,
            )
        )
        samples = pd.concat(
            [
                pd.DataFrame({"metric": name, "start": stats["start"], "value": stats[column]})
                for name, column in (("accuracy", "accuracy"), ("success_rate", "success"))
            ]
        )
        return MetricResult(
            pd.DataFrame(rows, columns=list(ROW_COLUMNS)),
            samples[list(SAMPLE_COLUMNS)].reset_index(drop=True),
        )


def _empty(n: int, what: str) -> str:
    return "" if n else f"no {what}"
