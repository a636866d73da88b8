"""Which other attribute an edit takes along: dependency one attribute at a time, at matched achieved effect.

Mean AD hides whether an editor changes everything a little or one correlated attribute a lot. Here every other
attribute i has its own number where the walk first passes the effect x* (editbench.stats.first_crossing.at_effect):

- `dependency_on[i]`: mean |l_i - l_i at step 0| / sigma_i, as in editbench.metrics.attribute_dependency.metric.
- `entanglement_with[i]`, where target and i are both binary: the mean of the signed change, positive where both move
  towards their positive classes or both towards the others. It has the sign of the correlation that was picked up, and
  is 0 for an editor that moves i as often one way as the other.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from editbench.stats.first_crossing import at_effect
from editbench.stats.intervals import NO_INTERVAL, bootstrap_mean
from editbench.walk.metric import ROW_COLUMNS, SAMPLE_COLUMNS, Metric, MetricResult, row
from editbench.walk.trajectory import Trajectories


class DependencyMatrix(Metric):
    """Rows, x = x*: `dependency_on[NAME]`, `entanglement_with[NAME]` (means over the starts that reach x*, bootstrap
    intervals). Samples: the same.

    Args:
        at: matched effect x*, in sigmas.
        draws: bootstrap draws.
    """

    name = "dependency_matrix"
    version = 1
    citation = "Wu, Lischinski & Shechtman: StyleSpace Analysis, CVPR 2021 (attribute dependency, by attribute)"
    produces = {"dependency_on": False, "entanglement_with": None}

    def __init__(self, at: float = 1.0, draws: int = 2000) -> None:
        if at <= 0:
            raise ValueError(f"need at > 0, got at={at}")
        self.at, self.draws = float(at), int(draws)

    def update(self, trajectories: Trajectories) -> pd.DataFrame:
        """One row a start; a column for every number of the result, NaN where the walk never reaches x*."""
        table, x = trajectories.table, trajectories.effect
        begins = np.flatnonzero(table["step"].to_numpy() == 0)
        owner = np.searchsorted(begins, trajectories.first_row)
        signed = trajectories.dependency(signed=True)
        sound = table["finite"].to_numpy(bool) & np.isfinite(x) & np.isfinite(signed).all(1)
        found = at_effect(x, signed, owner, sound, self.at, len(begins))
        attributes = trajectories.attributes
        towards = 2.0 * table["target"].to_numpy(np.int64)[begins] - 1
        stats = {"start": table["start"].to_numpy(np.int64)[begins]}
        for column, name in enumerate(
            name for name in attributes.names if name != trajectories.attribute
        ):
            stats[f"dependency_on[{name}]"] = np.abs(found[:, column])
            if attributes[name].binary and attributes[trajectories.attribute].binary:
                stats[f"entanglement_with[{name}]"] = towards * found[:, column]
        return pd.DataFrame(stats)

    def compute(self, stats: pd.DataFrame) -> MetricResult:
        stats = stats.sort_values("start", kind="stable", ignore_index=True)
        rows, samples = [], []
        for name in [str(column) for column in stats if column != "start"]:
            values = stats[name].to_numpy(np.float64)
            reached = np.isfinite(values)
            n = int(reached.sum())
            rows.append(
                row(
                    name,
                    float(values[reached].mean()) if n else float("nan"),
                    n,
                    *(bootstrap_mean(values, draws=self.draws) if n else NO_INTERVAL),
                    x=self.at,
                    note="" if n else f"no start reaches x = {self.at:g}",
                )
            )
            samples.append(
                pd.DataFrame(
                    {"metric": name, "start": stats["start"][reached], "value": values[reached]}
                )
            )
        return MetricResult(
            pd.DataFrame(rows, columns=list(ROW_COLUMNS)),
            pd.concat(samples or [pd.DataFrame(columns=list(SAMPLE_COLUMNS))], ignore_index=True)[
                list(SAMPLE_COLUMNS)
            ],
        )
