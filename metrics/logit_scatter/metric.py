"""Logits of two attributes before and after an edit (GradCtrl, Chen et al. 2022, Fig. 7b).

Starts of one class combination are edited; x is the logit of the target, y that of one other
attribute. Choices:

- The end of a walk is its crossing, where the paper stops; without a crossing, it is its last step.
- x and y are logits of the positive class in both directions of a walk, so that a slope has the
  same meaning in both. x = 0 is the boundary, the dashed line of the figure. For an attribute with
  several classes the log-odds of one class are used: of the target class for x, of the start's
  class for y.
- Flat is good: a slope of 0 means that the other attribute did not change. The paper's text says so
  ("slopes are more similar to the flat pink arrow"); its caption, "flatter lines indicate less
  disentanglement", contradicts text and figure.
- Slopes are in logits of the other attribute per logit of the target, as in the figure. They can be
  used to compare methods on one pair of attributes, but not different pairs.
- The median slope is also 0 if the other attribute changes strongly but in either direction. The
  quartiles and the mean of |dy| / |dx| show it.
- The mean of |dy| / |dx| is unbounded if a walk hardly moves x, so the median slope and its
  quartiles are more reliable. A walk that does not move x at all has no slope.
- A walk that becomes NaN or infinite before it crosses has failed: it counts as not crossing and as
  going in the wrong direction. Its last finite step is not a result, so it has no slope.
"""

from __future__ import annotations

import numpy as np
import torch

from editbench.base import seeding
from editbench.base.attributes import Attributes
from editbench.base.validation import check_at_least, check_attributes
from editbench.stats.intervals import (
    DRAWS,
    NO_INTERVAL,
    Interval,
    bootstrap_mean,
    median_interval,
    percentiles,
    wilson,
)
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

POINTS = ("x0", "y0", "x1", "y1")
QUARTILES = (0.75, 0.25)


class LogitScatter(Metric):
    """Slopes and end points of the arrows from before to after the edit.

    Rows:
        scatter_slope: median dy / dx, order-statistic interval.
        scatter_slope_iqr: interquartile range of the slopes, bootstrap.
        scatter_ratio: mean |dy| / |dx|, bootstrap.
        scatter_crossed, scatter_right_way: shares of the chosen starts that crossed, and whose x
            moved towards the target class; Wilson.
    Samples: scatter_slope, and the end points of each start's arrow, scatter_x0, _y0, _x1, _y1,
    whose variant is the attribute of y.

    States:
        start: (n,) ids of the chosen starts.
        crossed: (n,) 0 or 1.
        sign: (n,) 1 or -1, the direction in which x should move.
        x0, y0, x1, y1: (n,) logits; the last two are NaN if the walk failed.
        y_attribute: name of the attribute of y, or None.
        pair: why target and other attribute cannot be compared, or ''.

    Args:
        other: the attribute of y; None takes the scorer's first evaluated attribute that is not the
            target.
        source: class of the target attribute at the start, by index or name; None for any.
        other_class: class of the other attribute at the start, likewise.
        target: the only attribute whose edits are used; None for any. With this option a sweep over
            attributes can draw the figure for one of them.
        min_points: with fewer slopes the rows get a note.
        draws: bootstrap draws.
    """

    name = "logit_scatter"
    version = 1
    citation = "Chen, Jiang, Duke, Zhao & Aarabi: GradCtrl, ECCV 2022, Fig. 7b"
    higher_is_better = None
    produces = {
        "scatter_slope": None,
        "scatter_slope_iqr": False,
        "scatter_ratio": False,
        "scatter_crossed": True,
        "scatter_right_way": True,
    } | {f"scatter_{end}": None for end in POINTS}

    def __init__(
        self,
        other: str | None = None,
        source: int | str | None = None,
        other_class: int | str | None = None,
        min_points: int = 30,
        draws: int = DRAWS,
        target: str | None = None,
    ) -> None:
        check_at_least("draws", draws, 1)
        super().__init__()
        self.other = other
        self.target = target
        self.source = source
        self.other_class = other_class
        self.min_points = int(min_points)
        self.draws = int(draws)
        self.add_columns("start", "crossed", "sign", *POINTS)
        self.add_facts("y_attribute", "pair")

    def check(self, attributes: Attributes, attribute: str) -> None:
        """Reject attributes and classes that do not exist. `other` need not be evaluated.

        Raises:
            UnknownName: there is no such attribute, or no class of this name.
            EditbenchError: the index of a class is out of range.
        """
        if self.other is not None:
            check_attributes("metric.logit_scatter.other", [self.other], attributes.known)
        if self.target is not None:
            check_attributes("metric.logit_scatter.target", [self.target], attributes.known)
        if self.target not in (None, attribute):
            return  # this job is not used for the figure
        other = self._other(attributes, attribute)
        named = {"source": (attribute, self.source), "other_class": (other, self.other_class)}
        for key, (name, value) in named.items():
            if value is not None and name in attributes.names:
                attributes.class_index(name, value, f"metric.logit_scatter.{key}")

    def _other(self, attributes: Attributes, attribute: str) -> str | None:
        """The attribute of y; None if none is named and there is no other attribute."""
        if self.other is not None:
            return self.other
        return next((name for name in attributes.names if name != attribute), None)

    def update(self, trajectories: Trajectories) -> None:
        begins, _ = start_rows(trajectories)
        n = len(begins)
        start = trajectories.table["start"].to_numpy(np.int64)[begins]
        other = self._other(trajectories.attributes, trajectories.attribute)
        pair = self._pair(trajectories, other)
        self.keep_fact("y_attribute", other)
        self.keep_fact("pair", pair)
        if other is None or pair:
            nothing = {name: np.full(n, NAN) for name in POINTS}
            self.append(start=start, crossed=np.zeros(n), sign=np.ones(n), **nothing)
            return
        columns = {"start": start} | self._arrows(trajectories, other)
        chosen = self._chosen(trajectories, other)
        self.append(**{name: values[chosen] for name, values in columns.items()})

    def _arrows(self, trajectories: Trajectories, other: str) -> dict[str, np.ndarray]:
        """The ends of each start's arrow: crossed, sign, x0, y0, x1, y1 -> (n,)."""
        table = trajectories.table
        attributes = trajectories.attributes
        begins, owner = start_rows(trajectories)
        n = len(begins)
        sound = table["finite"].to_numpy(bool) & np.isfinite(trajectories.logits).all(1)
        stops = np.flatnonzero(table["stopped"].to_numpy(bool) & sound)
        last = np.append(begins[1:], len(table))[:n] - 1
        # -1 means that the walk failed. A crossing replaces the last step.
        ends = np.where(sound[last], last, -1)
        ends[owner[stops]] = stops
        kept = ends >= 0

        crossed = np.zeros(n)
        crossed[owner[stops]] = 1.0
        columns = {"crossed": crossed}
        target = table["target"].to_numpy(np.int64)[begins]
        stays = trajectories.labels[begins, attributes.index(other)]
        pairs = (("x", trajectories.attribute, target), ("y", other, stays))
        for axis, name, classes in pairs:
            places, sign = attributes.column(name, torch.tensor(classes))
            column = np.asarray(places)
            columns[f"{axis}0"] = trajectories.log_odds[begins, column]
            columns[f"{axis}1"] = np.where(kept, trajectories.log_odds[ends, column], NAN)
            if axis == "x":
                columns["sign"] = np.broadcast_to(np.asarray(sign), n).astype(np.float64)
        return columns

    def _chosen(self, trajectories: Trajectories, other: str) -> np.ndarray:
        """(n,) bool, whether a start has the classes given by the options."""
        attributes = trajectories.attributes
        begins, _ = start_rows(trajectories)
        classes = trajectories.labels[begins]
        chosen = np.ones(len(begins), bool)
        wanted = ((trajectories.attribute, self.source), (other, self.other_class))
        for name, value in wanted:
            if value is not None:
                chosen &= classes[:, attributes.index(name)] == attributes.class_index(name, value)
        return chosen

    def _pair(self, trajectories: Trajectories, other: str | None) -> str:
        """Why the target and the other attribute cannot be compared, or ''."""
        if self.target not in (None, trajectories.attribute):
            return f"edits of {self.target} alone are drawn (metric.logit_scatter.target)"
        if other is None:
            return "no other attribute is evaluated"
        if other == trajectories.attribute:
            return "the other attribute is the target itself"
        if other not in trajectories.attributes.names:
            return (
                f"metric.logit_scatter.other='{other}' is none of the attributes of this run "
                f"({', '.join(trajectories.attributes.names)})"
            )
        return ""

    def compute(self) -> MetricResult:
        found = self.sorted_columns("crossed", "sign", *POINTS)
        start = found["start"]
        note = "no start has these classes"
        if len(start):
            note = self.fact("pair")
        dx = found["x1"] - found["x0"]
        dy = found["y1"] - found["y0"]
        moved = np.isfinite(dx) & (dx != 0)
        if note:
            moved[:] = False
        slope = dy[moved] / dx[moved]
        few = note
        if not note and len(slope) < self.min_points:
            few = f"{len(slope)} slopes are fewer than {self.min_points}"

        out = ResultBuilder()
        # Median and quantiles of an empty array would raise errors or warnings.
        median = float(np.median(slope)) if len(slope) else NAN
        out.add("scatter_slope", median, len(slope), median_interval(slope), few)
        spread = interquartile_range(slope) if len(slope) else NAN
        out.add("scatter_slope_iqr", spread, len(slope), self._spread(slope), few)
        steep = np.abs(slope)
        interval = bootstrap_mean(steep, draws=self.draws)
        out.add("scatter_ratio", mean_of(steep), len(slope), interval, few)

        n = 0 if note else len(start)
        counted = {
            "scatter_crossed": int(found["crossed"].sum()),
            "scatter_right_way": int((dx * found["sign"] > 0).sum()),
        }
        for name, hits in counted.items():
            out.add(name, share(hits, n), n, wilson(hits, n), note)
        out.add_samples("scatter_slope", start[moved], slope)
        if not note:
            for end in POINTS:
                out.add_samples(
                    f"scatter_{end}", start, found[end], variant=self.fact("y_attribute")
                )
        return out.result()

    def _spread(self, slope: np.ndarray) -> Interval:
        """Percentile interval of the interquartile range, from resampled slopes."""
        if not len(slope):
            return NO_INTERVAL
        rng = seeding.rng(0, "scatter", len(slope))
        # Sorted, so that the draws do not depend on the order of the starts.
        ordered = np.sort(slope)
        ranges = []
        for _ in range(self.draws):
            drawn = ordered[rng.integers(0, len(slope), len(slope))]
            ranges.append(interquartile_range(drawn))
        low, high = percentiles(np.array(ranges)[:, None])[:, 0]
        return float(low), float(high)


def interquartile_range(values: np.ndarray) -> float:
    """Upper minus lower quartile."""
    upper, lower = np.quantile(values, QUARTILES)
    return float(upper - lower)
