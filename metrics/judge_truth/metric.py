"""How far the judge is from the truth along a walk, where the generator knows its factors (observation `truth`).

Every number of a benchmark is the judge's. Here the same walks are read twice, by the judge and by the factors that the
picture was drawn from, so that of an editor's error the judge's own part can be told:

- Steps that did not move are left out: a walk that has arrived and stands still would be counted over and over.
- `threshold_shift`: the true margin (editbench.worlds.faces.truth.margins: 0 on the true threshold, 1/2 at the clearest
  member of the class) where the judge first gives the target class, on the straight line between the two steps around
  it. Positive: the judge is late. It is 0 for a judge that is right, up to the bend of its lead within a step.
- `true_flips`: other attributes that truly changed at the judge's crossing; `false_flips`: those whose label the judge
  changed although the truth did not. The perfect edit has no true flips by construction.
- `stop_is_true` depends on the step: a longer one carries a walk further beyond both thresholds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from editbench.stats.intervals import bootstrap_mean, bootstrap_ratios, wilson
from editbench.walk.metric import ROW_COLUMNS, SAMPLE_COLUMNS, Metric, MetricResult, row
from editbench.walk.trajectory import Trajectories

NAN = float("nan")
MISSING = "no true factors: run the job with generator=renders observation=[truth]"
RATIOS = {
    "judge_right_target": ("right", "steps"),
    "judge_right_others": ("right_others", "steps_others"),
}
MEANS = ("threshold_shift", "threshold_error", "true_flips", "false_flips")
PER_START = (*MEANS, "stop_is_true")


class JudgeTruth(Metric):
    """Rows: `judge_right_target`, `judge_right_others` (share of the steps that moved, and of these steps' other
    attributes, whose label is the true one; bootstrap over starts), `threshold_shift`, `threshold_error` (its
    magnitude), `true_flips`, `false_flips` (means over crossed starts, bootstrap), `stop_is_true` (share of crossed
    starts that truly have the target class at the crossing, Wilson). Samples: all of them, a value a start.

    Args:
        draws: bootstrap draws.
    """

    name = "judge_truth"
    version = 1
    citation = "the factors of the embedded world (docs/ground_truth.md)"
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
        self.draws = int(draws)

    def update(self, trajectories: Trajectories) -> pd.DataFrame:
        """One row a start: counts of steps and of right labels, and at the crossing the numbers of PER_START."""
        table, names = trajectories.table, trajectories.attributes.names
        begins = np.flatnonzero(table["step"].to_numpy() == 0)
        stats: dict[str, np.ndarray] = {"start": table["start"].to_numpy(np.int64)[begins]}
        known = "true_margin" in table
        stats["known"] = np.full(len(begins), float(known))
        for name in ("steps", "right", "steps_others", "right_others"):
            stats[name] = np.zeros(len(begins))
        stats |= {name: np.full(len(begins), NAN) for name in PER_START}
        if not known:
            return pd.DataFrame(stats)
        owner = np.searchsorted(begins, trajectories.first_row)
        truth = table[[f"true:{name}" for name in names]].to_numpy(np.int64)
        others = np.array([name != trajectories.attribute for name in names], bool)
        right = trajectories.labels == truth
        path = table["path"].to_numpy(np.float64)
        moved = (
            table["finite"].to_numpy(bool)
            & (np.diff(path, prepend=0.0) > 0)
            & (table["step"].to_numpy() > 0)
        )
        sums = {
            "steps": np.ones(len(table)),
            "right": right[:, ~others][:, 0],
            "steps_others": np.full(len(table), others.sum()),
            "right_others": right[:, others].sum(1),
        }
        stats |= {
            name: np.bincount(owner, values * moved, len(begins)) for name, values in sums.items()
        }
        stops = np.flatnonzero(table["stopped"].to_numpy(bool))
        at, first = owner[stops], trajectories.first_row[stops]
        changed, changed_truly = (
            labels[stops] != labels[first] for labels in (trajectories.labels, truth)
        )
        stats["true_flips"][at] = changed_truly[:, others].sum(1)
        stats["false_flips"][at] = (changed & ~changed_truly)[:, others].sum(1)
        stats["stop_is_true"][at] = (
            truth[stops][:, ~others][:, 0] == table["target"].to_numpy()[stops]
        )
        shift = self._shift(trajectories, stops)
        stats["threshold_shift"][at], stats["threshold_error"][at] = shift, np.abs(shift)
        return pd.DataFrame(stats)

    def _shift(self, trajectories: Trajectories, stops: np.ndarray) -> np.ndarray:
        """(stops,) true margin where the judge's lead of the target class passes 0."""
        lead, margin = (
            target_lead(trajectories),
            trajectories.table["true_margin"].to_numpy(np.float64),
        )
        a, b = stops - 1, stops
        share = lead[a] / np.minimum(lead[a] - lead[b], -1e-12)
        return (1 - share) * margin[a] + share * margin[b]

    def compute(self, stats: pd.DataFrame) -> MetricResult:
        stats = stats.sort_values("start", kind="stable", ignore_index=True)
        unknown = (
            MISSING
            if len(stats) and not stats["known"].all()
            else ""
            if len(stats)
            else "no starts"
        )
        rows, samples = [], []
        for name, (right, steps) in RATIOS.items():
            hits, counts = (stats[[column]].to_numpy(np.float64) for column in (right, steps))
            low, high = bootstrap_ratios(hits, counts, draws=self.draws)
            n = int(counts.sum())
            rows.append(
                row(
                    name,
                    float(hits.sum() / n) if n else NAN,
                    n,
                    float(low[0]),
                    float(high[0]),
                    note=unknown,
                )
            )
            with np.errstate(invalid="ignore", divide="ignore"):
                samples.append(_samples(name, stats["start"], (hits / counts)[:, 0]))
        for name in MEANS:
            values = stats[name].to_numpy(np.float64)
            values = values[np.isfinite(values)]
            rows.append(
                row(
                    name,
                    float(values.mean()) if len(values) else NAN,
                    len(values),
                    *bootstrap_mean(values, draws=self.draws),
                    note=unknown or _none(len(values)),
                )
            )
        stopped = stats["stop_is_true"].dropna()
        rows.append(
            row(
                "stop_is_true",
                float(stopped.mean()) if len(stopped) else NAN,
                len(stopped),
                *wilson(int(stopped.sum()), len(stopped)),
                note=unknown or _none(len(stopped)),
            )
        )
        samples += [
            _samples(name, stats["start"], stats[name].to_numpy(np.float64)) for name in PER_START
        ]
        return MetricResult(
            pd.DataFrame(rows, columns=list(ROW_COLUMNS)), pd.concat(samples, ignore_index=True)
        )


def target_lead(trajectories: Trajectories) -> np.ndarray:
    """(rows,) the judge's logit of the target class less the largest of the others; of a binary attribute the logit,
    towards the target. Its sign is the label."""
    attributes, name = trajectories.attributes, trajectories.attribute
    part = attributes.logits(torch.tensor(trajectories.logits), name).numpy()
    target = trajectories.table["target"].to_numpy(np.int64)
    if attributes[name].binary:
        return part[:, 0] * (2 * target - 1)
    rows, rest = np.arange(len(part)), part.copy()
    rest[rows, target] = -np.inf
    return part[rows, target] - rest.max(1)


def _samples(metric: str, start: pd.Series, value: np.ndarray) -> pd.DataFrame:
    kept = np.isfinite(value)
    return pd.DataFrame({"metric": metric, "start": start[kept], "value": value[kept]})[
        list(SAMPLE_COLUMNS)
    ]


def _none(n: int) -> str:
    return "" if n else "no crossed starts"
