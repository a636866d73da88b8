"""Errors of the judge along a walk, for generators that know their true factors.

All numbers of the benchmark depend on the judge. Here the same walks are evaluated twice, by the
judge and by the factors that the image was rendered from (observation `truth`), which shows how
much of an editor's error is due to the judge:

- Steps without movement are left out, since a walk that has arrived and no longer moves would be
  counted repeatedly.
- `threshold_shift`: the true margin (editbench.worlds.faces.truth.margins: 0 on the true threshold,
  1/2 at the clearest member of the class) where the judge first sees the target class, by linear
  interpolation between the two steps around it. If it is positive, the judge is late. For a correct
  judge it is 0, up to the curvature of its lead within a step.
- `true_flips`: other attributes that truly changed at the judge's crossing; `false_flips`: those
  whose label the judge changed although the true class did not change. The perfect edit has no true
  flips by construction.
- `stop_is_true` depends on the step length: a longer step carries a walk further beyond both
  thresholds.
"""

from __future__ import annotations

import numpy as np
import torch

from editbench.base.validation import check_at_least
from editbench.metrics.judge_truth.observation import TRUE, TRUE_MARGIN
from editbench.stats.intervals import bootstrap_mean, bootstrap_ratios, wilson
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

MISSING = "no true factors: run the job with generator=renders observation=[truth]"
# Name of a ratio -> its numerator and denominator, both sums over the steps of a start.
RATIOS = {
    "judge_right_target": ("right", "steps"),
    "judge_right_others": ("right_others", "steps_others"),
}
# Why a ratio is missing although the truth is known.
NO_LABELS = {
    "judge_right_target": "no step moved",
    "judge_right_others": "no step moved, or there is no other attribute",
}
SUMS = ("steps", "right", "steps_others", "right_others")
MEANS = ("threshold_shift", "threshold_error", "true_flips", "false_flips")
PER_START = (*MEANS, "stop_is_true")
SMALLEST_LEAD = 1e-12  # avoids a division by 0; at a crossing the lead changes by more


class JudgeTruth(Metric):
    """The judge's labels and thresholds against the true ones.

    Rows:
        judge_right_target, judge_right_others: share of correct labels, of the target and of the
            other attributes, over the steps that moved; bootstrap over starts. If all labels are
            correct, or none is, Wilson's interval over the starts that moved.
        threshold_shift, threshold_error (its magnitude), true_flips, false_flips: means over
            crossed starts, bootstrap.
        stop_is_true: share of crossed starts that truly have the target class there, Wilson.
    Samples: all of them, one value per start.

    States:
        start: (n,) start ids.
        known: (n,) 1 if the true factors were observed.
        steps: (n,) number of labels of the target.
        right: (n,) number of correct labels of the target.
        steps_others: (n,) number of labels of the other attributes.
        right_others: (n,) number of correct labels of the other attributes.
        threshold_shift, ..., stop_is_true: (n,) values at the crossing, NaN without one.

    Args:
        draws: bootstrap draws.
    """

    name = "judge_truth"
    version = 1
    citation = "the factors of the embedded world (docs/ground_truth.md)"
    higher_is_better = True
    produces = {
        "judge_right_target": True,
        "judge_right_others": True,
        "threshold_shift": None,
        "threshold_error": False,
        "true_flips": False,
        "false_flips": False,
        "stop_is_true": True,
    }

    def __init__(self, draws: int = 2000) -> None:
        check_at_least("draws", draws, 1)
        super().__init__()
        self.draws = int(draws)
        self.add_columns("start", "known", *SUMS, *PER_START)

    def update(self, trajectories: Trajectories) -> None:
        begins, _ = start_rows(trajectories)
        n = len(begins)
        known = TRUE_MARGIN in trajectories.table
        columns = {name: np.zeros(n) for name in SUMS}
        columns |= {name: np.full(n, NAN) for name in PER_START}
        if known:
            columns |= self._sums(trajectories)
            columns |= self._crossings(trajectories)
        start = trajectories.table["start"].to_numpy(np.int64)[begins]
        self.append(start=start, known=np.full(n, float(known)), **columns)

    def _sums(self, trajectories: Trajectories) -> dict[str, np.ndarray]:
        """Counts of labels and correct labels over the steps that moved: name of SUMS -> (n,)."""
        table = trajectories.table
        begins, owner = start_rows(trajectories)
        others = other_attributes(trajectories)
        right = trajectories.labels == true_labels(trajectories)
        path = table["path"].to_numpy(np.float64)
        # A step without movement shows the previous image again.
        further = np.diff(path, prepend=0.0) > 0
        moved = table["finite"].to_numpy(bool) & further & (table["step"].to_numpy() > 0)
        counts = {
            "steps": np.ones(len(table)),
            "right": right[:, ~others][:, 0],
            "steps_others": np.full(len(table), others.sum()),
            "right_others": right[:, others].sum(1),
        }
        return {
            name: np.bincount(owner, values * moved, len(begins)) for name, values in counts.items()
        }

    def _crossings(self, trajectories: Trajectories) -> dict[str, np.ndarray]:
        """True values at the judge's crossing: name of PER_START -> (n,), NaN if there is none."""
        table = trajectories.table
        begins, owner = start_rows(trajectories)
        others = other_attributes(trajectories)
        truth = true_labels(trajectories)
        stops = np.flatnonzero(table["stopped"].to_numpy(bool))
        at = owner[stops]
        first = trajectories.first_row[stops]
        # Flips are relative to step 0, for the judge's labels and for the true ones.
        changed = trajectories.labels[stops] != trajectories.labels[first]
        changed_truly = truth[stops] != truth[first]
        target = table["target"].to_numpy()[stops]
        shift = self._shift(trajectories, stops)

        columns = {name: np.full(len(begins), NAN) for name in PER_START}
        # A false flip changes only the judge's label, not the attribute.
        columns["true_flips"][at] = changed_truly[:, others].sum(1)
        columns["false_flips"][at] = (changed & ~changed_truly)[:, others].sum(1)
        columns["stop_is_true"][at] = truth[stops][:, ~others][:, 0] == target
        columns["threshold_shift"][at] = shift
        columns["threshold_error"][at] = np.abs(shift)
        return columns

    def _shift(self, trajectories: Trajectories, stops: np.ndarray) -> np.ndarray:
        """(stops,) true margin where the judge's lead of the target class passes 0."""
        lead = target_lead(trajectories)
        margin = trajectories.table[TRUE_MARGIN].to_numpy(np.float64)
        # Rows are sorted by start and step, and a walk never stops at step 0, so the previous row
        # belongs to the same walk.
        before = stops - 1
        # The lead grows from below 0 to above it, so the difference is negative.
        way = lead[before] / np.minimum(lead[before] - lead[stops], -SMALLEST_LEAD)
        return (1 - way) * margin[before] + way * margin[stops]

    def compute(self) -> MetricResult:
        found = self.sorted_columns("known", *SUMS, *PER_START)
        start = found["start"]
        unknown = ""
        if not len(start):
            unknown = "no starts"
        elif not found["known"].all():
            unknown = MISSING
        out = ResultBuilder()
        for name, (right, steps) in RATIOS.items():
            hits = found[right][:, None]
            counts = found[steps][:, None]
            low, high = bootstrap_ratios(hits, counts, draws=self.draws)
            n = int(counts.sum())
            value = share(hits.sum(), n)
            interval = (float(low[0]), float(high[0]))
            # Resampling equal outcomes says nothing about outcomes that were not seen. Labels of one
            # start are not independent, so a start counts once.
            if value in (0.0, 1.0):
                moved = int((counts > 0).sum())
                interval = wilson(value * moved, moved)
            note = unknown or ("" if n else NO_LABELS[name])
            out.add(name, value, n, interval, note)
            with np.errstate(invalid="ignore", divide="ignore"):
                out.add_samples(name, start, (hits / counts)[:, 0])
        for name in MEANS:
            values = found[name][np.isfinite(found[name])]
            interval = bootstrap_mean(values, draws=self.draws)
            note = unknown or _none(len(values))
            out.add(name, mean_of(values), len(values), interval, note)
        stopped = found["stop_is_true"][np.isfinite(found["stop_is_true"])]
        interval = wilson(int(stopped.sum()), len(stopped))
        note = unknown or _none(len(stopped))
        out.add("stop_is_true", mean_of(stopped), len(stopped), interval, note)
        for name in PER_START:
            out.add_samples(name, start, found[name])
        return out.result()


def other_attributes(trajectories: Trajectories) -> np.ndarray:
    """(A,) bool: True for the attributes other than the target."""
    return np.array(trajectories.attributes.names) != trajectories.attribute


def true_labels(trajectories: Trajectories) -> np.ndarray:
    """(rows, A) true classes, from the observation `truth`."""
    columns = [f"{TRUE}{name}" for name in trajectories.attributes.names]
    return trajectories.table[columns].to_numpy(np.int64)


def target_lead(trajectories: Trajectories) -> np.ndarray:
    """(rows,) the judge's logit of the target class minus the largest of the other classes.

    For a binary attribute it is the logit, signed towards the target. It is positive if the judge's
    label is the target.
    """
    attributes = trajectories.attributes
    name = trajectories.attribute
    part = attributes.logits(torch.tensor(trajectories.logits), name).numpy()
    target = trajectories.table["target"].to_numpy(np.int64)
    if attributes[name].binary:
        return part[:, 0] * (2 * target - 1)
    rows = np.arange(len(part))
    # The target itself is excluded from the maximum over the other classes.
    rest = part.copy()
    rest[rows, target] = -np.inf
    return part[rows, target] - rest.max(1)


def _none(n: int) -> str:
    return "" if n else "no crossed starts"
