"""Accuracy at the first boundary crossing (GradCtrl, Chen et al. 2022, Table 1).

Each start is walked until the judge first assigns it the target class. Definitions that the paper
leaves open:

- success: the walk crossed; the label is that of the decoded sample at which the walk stopped.
- accuracy: it crossed, and every other attribute kept the class it had at step 0.
- A walk that never crosses, or that becomes NaN or infinite before, is a failure for both numbers.
  It stays in the denominator, since leaving it out would reward an editor for diverging.
- Overshoot is a property of the editor: the first whole step beyond the boundary is evaluated.
"""

from __future__ import annotations

import numpy as np

from editbench.stats.intervals import bootstrap_mean, median_interval, wilson
from editbench.walk.metric import (
    NAN,
    Metric,
    MetricResult,
    ResultBuilder,
    mean_of,
    share,
    start_rows,
)
from editbench.walk.trajectory import Trajectories


class CrossingAccuracy(Metric):
    """Accuracy, success rate, off-target flips and path length at the first crossing.

    Rows:
        accuracy, success_rate: shares of all starts, Wilson intervals.
        off_target_flips: mean number of other labels changed, over crossed starts, bootstrap.
        path_length: median over crossed starts, in units of the editor's space, order-statistic
            interval.
    Samples: accuracy and success_rate, 0 or 1 for each start.

    States:
        start: (n,) start ids.
        success: (n,) 0 or 1.
        accuracy: (n,) 0 or 1.
        flips: (n,), NaN if the walk did not cross.
        path: (n,), NaN likewise.
    """

    name = "crossing_accuracy"
    version = 1
    citation = "Chen, Jiang, Duke, Zhao & Aarabi: GradCtrl, ECCV 2022, Table 1"
    higher_is_better = True
    produces = {
        "accuracy": True,
        "success_rate": True,
        "off_target_flips": False,
        "path_length": False,
    }

    def __init__(self) -> None:
        super().__init__()
        self.add_columns("start", "success", "accuracy", "flips", "path")

    def update(self, trajectories: Trajectories) -> None:
        table = trajectories.table
        begins, owner = start_rows(trajectories)
        sound = table["finite"].to_numpy(bool) & np.isfinite(trajectories.logits).all(1)
        stops = np.flatnonzero(table["stopped"].to_numpy(bool) & sound)
        firsts = trajectories.first_row[stops]
        changed = trajectories.labels[stops] != trajectories.labels[firsts]
        names = np.array(trajectories.attributes.names)
        others = names != trajectories.attribute

        # NaN marks the walks that did not cross.
        flips = np.full(len(begins), NAN)
        flips[owner[stops]] = changed[:, others].sum(1)
        path = np.full(len(begins), NAN)
        path[owner[stops]] = table["path"].to_numpy(np.float64)[stops]
        self.append(
            start=table["start"].to_numpy(np.int64)[begins],
            success=np.isfinite(flips).astype(np.float64),
            accuracy=(flips == 0).astype(np.float64),
            flips=flips,
            path=path,
        )

    def compute(self) -> MetricResult:
        found = self.sorted_columns("success", "accuracy", "flips", "path")
        n = len(found["start"])
        out = ResultBuilder()
        for name, column in (("accuracy", "accuracy"), ("success_rate", "success")):
            hits = int(found[column].sum())
            out.add(name, share(hits, n), n, wilson(hits, n), _empty(n, "starts"))
            out.add_samples(name, found["start"], found[column])

        crossed = found["success"] > 0
        count = int(crossed.sum())
        note = _empty(count, "crossed starts")
        flips = found["flips"][crossed]
        out.add("off_target_flips", mean_of(flips), count, bootstrap_mean(flips), note)
        path = found["path"][crossed]
        # np.median of an empty array is NaN but warns.
        median = float(np.median(path)) if count else NAN
        out.add("path_length", median, count, median_interval(path), note)
        return out.result()


def _empty(n: int, what: str) -> str:
    return "" if n else f"no {what}"
