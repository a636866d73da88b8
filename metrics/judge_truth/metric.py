"""How far the judge is from the truth along a walk, where the generator knows its factors.

Every number of a benchmark is the judge's. Here the same walks are read twice, by the judge and by
the factors that the picture was drawn from (observation `truth`), so that the judge's own part of
an editor's error is known:

- Steps that did not move are left out: a walk that has arrived and stands still would be counted
  over and over.
- `threshold_shift`: the true margin (editbench.worlds.faces.truth.margins: 0 on the true threshold,
  1/2 at the clearest member of the class) where the judge first gives the target class, on the
  straight line between the two steps around it. Positive: the judge is late. It is 0 for a judge
  that is right, up to the bend of its lead within a step.
- `true_flips`: other attributes that truly changed at the judge's crossing; `false_flips`: those
  whose label the judge changed although the truth did not. The perfect edit has no true flips by
  construction.
- `stop_is_true` depends on the step: a longer one carries a walk further beyond both thresholds.
"""

from __future__ import annotations

import numpy as np
import torch

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
# Why a ratio has no number although the truth is known.
NO_LABELS = {
    "judge_right_target": "no step moved",
    "judge_right_others": "no step moved, or there is no other attribute",
}
SUMS = ("steps", "right", "steps_others", "right_others")
MEANS = ("threshold_shift", "threshold_error", "true_flips", "false_flips")
PER_START = (*MEANS, "stop_is_true")
SMALLEST_LEAD = 1e-12  # keeps a division finite; a crossing has a larger change of the lead


class JudgeTruth(Metric):
    """The judge's labels and thresholds against the true ones.

    Rows:
        judge_right_target, judge_right_others: share of the steps that moved, and of these steps'
            other attributes, whose label is the true one; bootstrap over starts.
        threshold_shift, threshold_error (its magnitude), true_flips, false_flips: means over
            crossed starts, bootstrap.
        stop_is_true: share of crossed starts that truly have the target class there, Wilson.
    Samples: all of them, a value a start.

    States:
        start: (n,) start ids.
        known: (n,) 1 where the true factors were observed.
        steps: (n,) labels of the target.
        right: (n,) right ones of these.
        steps_others: (n,) labels of the other attributes.
        right_others: (n,) right ones of these.
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
        """Counts of labels and of right ones over the steps that moved: name of SUMS -> (n,)."""
        table = trajectories.table
        begins, owner = start_rows(trajectories)
        others = other_attributes(trajectories)
        right = trajectories.labels == true_labels(trajectories)
        path = table["path"].to_numpy(np.float64)
        # A step that did not move shows the picture before it once more.
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
        """What is true at the judge's crossing: name of PER_START -> (n,), NaN without one."""
        table = trajectories.table
        begins, owner = start_rows(trajectories)
        others = other_attributes(trajectories)
        truth = true_labels(trajectories)
        stops = np.flatnonzero(table["stopped"].to_numpy(bool))
        at = owner[stops]
        first = trajectories.first_row[stops]
        # Flips are counted against step 0, by the judge's labels and by the true ones.
        changed = trajectories.labels[stops] != trajectories.labels[first]
        changed_truly = truth[stops] != truth[first]
        target = table["target"].to_numpy()[stops]
        shift = self._shift(trajectories, stops)

        columns = {name: np.full(len(begins), NAN) for name in PER_START}
        # A false flip is the judge's alone: the attribute has not changed.
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
        # Rows are sorted by start and step, and step 0 never stops: the row before is of this walk.
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
            interval = (float(low[0]), float(high[0]))
            note = unknown or ("" if n else NO_LABELS[name])
            out.add(name, share(hits.sum(), n), n, interval, note)
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
    """(A,) whether an attribute is another than the target."""
    return np.array(trajectories.attributes.names) != trajectories.attribute


def true_labels(trajectories: Trajectories) -> np.ndarray:
    """(rows, A) true classes, as the observation `truth` left them."""
    columns = [f"{TRUE}{name}" for name in trajectories.attributes.names]
    return trajectories.table[columns].to_numpy(np.int64)


def target_lead(trajectories: Trajectories) -> np.ndarray:
    """(rows,) the judge's logit of the target class less the largest of the others.

    Of a binary attribute it is the logit, towards the target. Its sign is the label.
    """
    attributes = trajectories.attributes
    name = trajectories.attribute
    part = attributes.logits(torch.tensor(trajectories.logits), name).numpy()
    target = trajectories.table["target"].to_numpy(np.int64)
    if attributes[name].binary:
        return part[:, 0] * (2 * target - 1)
    rows = np.arange(len(part))
    # The target itself must not be its own rival.
    rest = part.copy()
    rest[rows, target] = -np.inf
    return part[rows, target] - rest.max(1)


def _none(n: int) -> str:
    return "" if n else "no crossed starts"
