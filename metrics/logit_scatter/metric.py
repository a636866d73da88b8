"""Logits of two attributes before and after an edit (GradCtrl, Chen et al. 2022, Fig. 7b).

Starts of one class combination are edited; x is the logit of the target, y that of one other attribute. Choices:

- The end of a walk is its crossing, where the paper stops; without one, its last sound step.
- x and y are logits of the positive class, whichever way the walk goes, so that a slope means the same both ways; x = 0
  is the boundary, the dashed line of the figure. An attribute of many classes has the log-odds of one of them: of the
  asked class for x, of the start's class for y.
- Flat is good: a slope of 0 means that the other attribute stayed. The paper's text says so ("slopes are more similar
  to the flat pink arrow"); its caption, "flatter lines indicate less disentanglement", contradicts text and picture.
- Slopes are in logits of the other attribute a logit of the target, as in the figure. They compare methods on one pair
  of attributes, not one pair with another.
- The mean of |dy| / |dx| has no ceiling where a walk hardly moves x; the median slope and its quartiles are the numbers
  to trust. A walk that does not move x at all has no slope.
- A walk that turns NaN or infinite before it crosses has failed: it counts as not crossing and as going the wrong way,
  and its last sound step is no result, so it has no slope.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from editbench.base.seeding import generator
from editbench.stats.intervals import (
    DRAWS,
    Interval,
    bootstrap_mean,
    median_interval,
    percentiles,
    wilson,
)
from editbench.walk.metric import ROW_COLUMNS, SAMPLE_COLUMNS, Metric, MetricResult, row
from editbench.walk.trajectory import Trajectories

POINTS = ("x0", "y0", "x1", "y1")
COUNTED = ("scatter_crossed", "scatter_right_way")
NAN = float("nan")


class LogitScatter(Metric):
    """Rows: `scatter_slope` (median dy / dx), `scatter_slope_iqr` (its interquartile range), `scatter_ratio` (mean
    |dy| / |dx|), `scatter_crossed` and `scatter_right_way` (shares of the chosen starts that crossed, and whose x
    moved towards the asked class). Samples: `scatter_slope`, and the ends of each start's arrow, `scatter_x0`, `_y0`,
    `_x1`, `_y1`.

    Args:
        other: the attribute of y.
        source: class of the target attribute at the start, by index or name; null: every start.
        other_class: class of the other attribute at the start, in the same way.
        min_points: with fewer slopes the rows carry a note.
        draws: bootstrap draws.
    """

    name = "logit_scatter"
    version = 1
    citation = "Chen, Jiang, Duke, Zhao & Aarabi: GradCtrl, ECCV 2022, Fig. 7b"
    produces = {
        "scatter_slope": None,
        "scatter_slope_iqr": False,
        "scatter_ratio": False,
        "scatter_crossed": True,
        "scatter_right_way": True,
    } | {f"scatter_{end}": None for end in POINTS}

    def __init__(
        self,
        other: str,
        source: int | str | None = None,
        other_class: int | str | None = None,
        min_points: int = 30,
        draws: int = DRAWS,
    ) -> None:
        self.other, self.source, self.other_class = str(other), source, other_class
        self.min_points, self.draws = int(min_points), int(draws)

    def update(self, trajectories: Trajectories) -> pd.DataFrame:
        """One row a chosen start: note ('' or why there is no pair), crossed (0 or 1), sign (1 or -1: where
        x should go), x0, y0, x1, y1 (NaN: failed)."""
        table, attributes = trajectories.table, trajectories.attributes
        begins = np.flatnonzero(table["step"].to_numpy() == 0)
        stats = pd.DataFrame(
            {
                "start": table["start"].to_numpy(np.int64)[begins],
                "note": self._pair(trajectories),
                "crossed": 0.0,
                "sign": 1.0,
                **dict.fromkeys(POINTS, NAN),
            }
        )
        if self._pair(trajectories):
            return stats
        owner = np.searchsorted(begins, trajectories.first_row)
        sound = table["finite"].to_numpy(bool) & np.isfinite(trajectories.logits).all(1)
        stops = np.flatnonzero(table["stopped"].to_numpy(bool) & sound)
        last = np.append(begins[1:], len(table))[: len(begins)] - 1
        ends = np.where(sound[last], last, -1)
        ends[owner[stops]] = stops
        kept = ends >= 0
        classes = trajectories.labels[begins]
        for at, (name, edges) in enumerate(
            ((trajectories.attribute, ("x0", "x1")), (self.other, ("y0", "y1")))
        ):
            place = attributes.index(name)
            aim = table["target"].to_numpy(np.int64)[begins] if at == 0 else classes[:, place]
            column, sign = (np.asarray(part) for part in attributes.column(name, torch.tensor(aim)))
            stats[edges[0]] = trajectories.log_odds[begins, column]
            stats[edges[1]] = np.where(kept, trajectories.log_odds[ends, column], NAN)
            if at == 0:
                stats["sign"] = np.broadcast_to(sign, len(begins)).astype(np.float64)
        stats.loc[owner[stops], "crossed"] = 1.0
        chosen = np.ones(len(begins), bool)
        for name, wanted in ((trajectories.attribute, self.source), (self.other, self.other_class)):
            if wanted is not None:
                chosen &= classes[:, attributes.index(name)] == attributes.class_index(name, wanted)
        return stats[chosen].reset_index(drop=True)

    def _pair(self, trajectories: Trajectories) -> str:
        """'' or why the target and the other attribute make no pair."""
        if self.other == trajectories.attribute:
            return "the other attribute is the target itself"
        if self.other not in trajectories.attributes.names:
            return (
                f"metric.logit_scatter.other='{self.other}' is none of the attributes of this run "
                f"({', '.join(trajectories.attributes.names)})"
            )
        return ""

    def compute(self, stats: pd.DataFrame) -> MetricResult:
        stats = stats.sort_values("start", kind="stable", ignore_index=True)
        note = str(stats["note"].iloc[0]) if len(stats) else "no start has these classes"
        n = 0 if note else len(stats)
        dx, dy = ((stats[f"{axis}1"] - stats[f"{axis}0"]).to_numpy(np.float64) for axis in "xy")
        moved = np.isfinite(dx) & (dx != 0) if not note else np.zeros(len(stats), bool)
        slope = dy[moved] / dx[moved]
        few = note or (
            f"{len(slope)} slopes are fewer than {self.min_points}"
            if len(slope) < self.min_points
            else ""
        )
        quartiles = np.subtract(*np.quantile(slope, [0.75, 0.25])) if len(slope) else NAN
        rows = [
            row(
                "scatter_slope",
                float(np.median(slope)) if len(slope) else NAN,
                len(slope),
                *median_interval(slope),
                note=few,
            ),
            row("scatter_slope_iqr", float(quartiles), len(slope), *self._spread(slope), note=few),
            row(
                "scatter_ratio",
                float(np.abs(slope).mean()) if len(slope) else NAN,
                len(slope),
                *bootstrap_mean(np.abs(slope), draws=self.draws),
                note=few,
            ),
        ]
        for name, hits in zip(
            COUNTED, (int(stats["crossed"].sum()), int((dx * stats["sign"] > 0).sum()))
        ):
            rows.append(row(name, hits / n if n else NAN, n, *wilson(hits, n), note=note))
        parts = [
            pd.DataFrame(
                {"metric": "scatter_slope", "start": stats["start"][moved], "value": slope}
            )
        ]
        for end in POINTS if not note else ():
            known = stats[end].notna()
            parts.append(
                pd.DataFrame(
                    {
                        "metric": f"scatter_{end}",
                        "start": stats["start"][known],
                        "value": stats[end][known],
                    }
                )
            )
        return MetricResult(
            pd.DataFrame(rows, columns=list(ROW_COLUMNS)),
            pd.concat(parts, ignore_index=True)[list(SAMPLE_COLUMNS)],
        )

    def _spread(self, slope: np.ndarray) -> Interval:
        """Percentile interval of the interquartile range, from resampled slopes."""
        if not len(slope):
            return NAN, NAN
        rng, ordered = generator(0, "scatter", len(slope)), np.sort(slope)
        ranges = [
            np.subtract(
                *np.quantile(ordered[rng.integers(0, len(slope), len(slope))], [0.75, 0.25])
            )
            for _ in range(self.draws)
        ]
        low, high = percentiles(np.array(ranges)[:, None])[:, 0]
        return float(low), float(high)
