"""Control and disentanglement along a walk (Khrulkov et al. 2021, NeuralODE, eq. 6 and 7).

Every start is walked over the same grid of steps 0..S (S = 40: 41 points). Definitions, the paper's first:

- control C(t): share of the starts that the judge gives the target class at step t (eq. 6). The authors' code counts a
  start from the first step at which its class has ever changed, to whatever class: that is `cd_control_ever`.
- entropy D(t): for each other attribute i the histogram of its classes at steps 0..t, its entropy divided by ln |A_i|,
  mean over the other attributes and the starts (eq. 7). D(0) = 0. It depends on the density of the grid, so S is fixed.
- D weighs where a class changes: a late change, or an early one that lasts, costs little. `cd_end_flips`, the share of
  other attributes whose class at step S is not that of step 0, stands beside it for that reason.
- The class of step 0 is the judge's on the start's own image.
- A walk that turns NaN or infinite on the grid is a failure: it is not controlled at any step, by either definition,
  and stays in the denominator of C; it has no histogram and no part in D or the flips. A note tells how many there are.
- Walks that were stopped short of step S (at their crossing, say) say nothing about the rest: no number is given then.
- C need not grow with t. D as a function of C is read where the mean curve first reaches a level (editbench.stats.first_crossing).
  `cd_area` runs over [0, this method's largest C] and so cannot be compared with a method that gets further; the report
  takes the area over the range that all methods share from `cd_control` and `cd_entropy`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from editbench.stats.first_crossing import area, at_level, most_within
from editbench.stats.intervals import (
    NO_INTERVAL,
    bootstrap_mean,
    percentiles,
    resampled_sums,
    wilson,
)
from editbench.walk.metric import ROW_COLUMNS, SAMPLE_COLUMNS, Metric, MetricResult, row
from editbench.walk.trajectory import Trajectories

LEVELS = np.arange(1, 21) / 20
SCALARS = ("cd_max_control", "cd_area", "cd_control_at")
NAN = float("nan")


class ControlDisentanglement(Metric):
    """Rows: curves `cd_control`, `cd_control_ever` (x: step; share of all starts, Wilson intervals), `cd_entropy` (x:
    step) and `cd_entropy_at` (x: level of control), then `cd_max_control`, `cd_area`, `cd_control_at` (the largest
    control on the curve where D is at most `limit`) and `cd_end_flips`. All other intervals resample starts.
    Samples: `cd_end_control`, `cd_end_entropy`, `cd_end_flips` of each start at step S.

    Args:
        steps: S.
        limit: of D, for `cd_control_at`.
        draws: bootstrap draws.
    """

    name = "control_disentanglement"
    version = 1
    citation = "Khrulkov, Mirvakhabova, Oseledets & Babenko: Latent Transformations via NeuralODEs, ICCV 2021, eq. 6-7"
    produces = {
        "cd_control": True,
        "cd_control_ever": True,
        "cd_entropy": False,
        "cd_entropy_at": False,
        "cd_max_control": True,
        "cd_area": None,
        "cd_control_at": True,
        "cd_end_flips": False,
        "cd_end_control": True,
        "cd_end_entropy": False,
    }

    def __init__(self, steps: int = 40, limit: float = 0.1, draws: int = 2000) -> None:
        if steps < 1 or not 0 <= limit <= 1:
            raise ValueError(
                f"need steps of at least 1 and a limit in [0, 1], got steps={steps}, limit={limit}"
            )
        self.steps, self.limit, self.draws = int(steps), float(limit), int(draws)
        moments, count = np.arange(1, self.steps + 2), np.arange(self.steps + 2)
        share = np.minimum(count[:, None] / moments, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.terms = np.where(share > 0, -share * np.log(share), 0.0)  # (count, t): -p ln p

    def update(self, trajectories: Trajectories) -> pd.DataFrame:
        """One row a start: whole, cut (0 or 1), others (A - 1), control:t, ever:t (0 or 1), entropy:t, flips; the last
        two are 0 where the walk is not whole."""
        table, size = trajectories.table, self.steps + 1
        begins = np.flatnonzero(table["step"].to_numpy() == 0)
        owner, step = (
            np.searchsorted(begins, trajectories.first_row),
            table["step"].to_numpy(np.int64),
        )
        sound = table["finite"].to_numpy(bool) & np.isfinite(trajectories.logits).all(1)
        rows = np.flatnonzero(sound & (step < size))
        classes = np.zeros((len(begins), size, len(trajectories.attributes)), np.int64)
        classes[owner[rows], step[rows]] = trajectories.labels[rows]
        whole = np.bincount(owner[rows], minlength=len(begins)) == size
        broken = np.bincount(owner, ~sound & (step < size), len(begins)) > 0
        place = trajectories.attributes.index(trajectories.attribute)
        mine = classes[:, :, place]
        target = table["target"].to_numpy(np.int64)[begins]
        control = (mine == target[:, None]) & whole[:, None]
        ever = np.maximum.accumulate(mine != mine[:, :1], 1) & whole[:, None]
        others = [i for i in range(len(trajectories.attributes)) if i != place]
        entropy, flips = np.zeros((len(begins), size)), np.zeros(len(begins))
        for i in others:
            entropy += self._entropy(classes[:, :, i], len(trajectories.attributes[i].classes))
            flips += classes[:, -1, i] != classes[:, 0, i]
        scale = whole / max(len(others), 1)
        stats = {
            "start": table["start"].to_numpy(np.int64)[begins],
            "whole": whole.astype(np.float64),
            "cut": (~whole & ~broken).astype(np.float64),
            "others": np.full(len(begins), float(len(others))),
            "flips": flips * scale,
        }
        for name, values in (
            ("control", control),
            ("ever", ever),
            ("entropy", entropy * scale[:, None]),
        ):
            stats |= {f"{name}:{t}": values[:, t].astype(np.float64) for t in range(size)}
        return pd.DataFrame(stats)

    def _entropy(self, classes: np.ndarray, count: int) -> np.ndarray:
        """(n, T) classes -> (n, T) normalised entropy of the histogram up to each step."""
        moments = np.arange(classes.shape[1])
        total = np.zeros(classes.shape)
        for value in range(count):
            total += self.terms[(classes == value).cumsum(1), moments]
        return total / np.log(count)

    def compute(self, stats: pd.DataFrame) -> MetricResult:
        stats = stats.sort_values("start", kind="stable", ignore_index=True)
        n, whole, cut = len(stats), stats["whole"].to_numpy(np.float64), int(stats["cut"].sum())
        alone = bool(n) and not stats["others"].to_numpy().any()
        curve = {
            name: stats[[f"{name}:{t}" for t in range(self.steps + 1)]].to_numpy(np.float64)
            for name in ("control", "ever", "entropy")
        }
        short = (
            "no starts"
            if not n
            else (
                f"{cut} of {n} walks end before step {self.steps}: set engine.max_steps and "
                f"engine.sweep_steps to {self.steps}"
            )
            if cut
            else ""
        )
        rows = []
        for name, column in (("cd_control", "control"), ("cd_control_ever", "ever")):
            for t, hits in enumerate(curve[column].sum(0).astype(int)):
                value = (NAN, NO_INTERVAL) if short else (hits / n, wilson(int(hits), n))
                rows.append(row(name, value[0], n, *value[1], x=t, note=short))
        kept = int(whole.sum())
        why = (
            short
            or ("one attribute only: there is no other to change" if alone else "")
            or ("" if kept else "every walk diverged")
        )
        rows += self._against(curve, whole, why, n, kept)
        lost = (
            f"{n - kept} of {n} walks diverged: not controlled, and without part in the entropy"
            if kept < n
            else ""
        )
        flips = stats["flips"].to_numpy(np.float64)[whole > 0]
        value = (
            (NAN, NO_INTERVAL)
            if why
            else (float(flips.mean()), bootstrap_mean(flips, draws=self.draws))
        )
        rows.append(row("cd_end_flips", value[0], kept, *value[1], note=why or lost))
        frame = pd.DataFrame(rows, columns=list(ROW_COLUMNS))
        scalar = frame["metric"].isin(SCALARS) & (frame["note"] == "")
        frame.loc[scalar, "note"] = lost
        return MetricResult(frame, self._samples(stats, curve, short, why))

    def _against(
        self, curve: dict[str, np.ndarray], whole: np.ndarray, why: str, n: int, kept: int
    ) -> list[dict]:
        """Rows of D over steps and over control, and of the three scalars; NaN with the reason `why`."""
        size, levels = self.steps + 1, len(LEVELS)
        if why:
            mean = low = high = np.full(size + levels + len(SCALARS), NAN)
        else:
            columns = np.concatenate([curve["control"], curve["entropy"], whole[:, None]], 1)
            mean = self._summary(columns.sum(0)[None], n)[0]
            low, high = percentiles(self._summary(resampled_sums(columns, self.draws), n))
            low, high = (
                np.where(np.isfinite(mean), low, NAN),
                np.where(np.isfinite(mean), high, NAN),
            )
        names = [("cd_entropy", float(t)) for t in range(size)] + [
            ("cd_entropy_at", float(c)) for c in LEVELS
        ]
        names += [(name, NAN) for name in SCALARS]
        rows = []
        for (name, x), value, below, above in zip(names, mean, low, high):
            note = why or (
                "never controlled: there is no range to take it over"
                if name == "cd_area" and not np.isfinite(value)
                else ""
            )
            if name == "cd_entropy_at" and not note and not np.isfinite(value):
                note = "this much control is never reached"
            rows.append(
                row(
                    name,
                    float(value),
                    n if name == "cd_max_control" else kept,
                    float(below),
                    float(above),
                    x=x,
                    note=note,
                )
            )
        return rows

    def _summary(self, sums: np.ndarray, n: int) -> np.ndarray:
        """(draws, 2 T + 1) sums of control, entropy, whole -> (draws, T + levels + 3)."""
        size = self.steps + 1
        with np.errstate(invalid="ignore", divide="ignore"):
            control, entropy = sums[:, :size] / n, sums[:, size : 2 * size] / sums[:, 2 * size :]
        most = control.max(1)
        whole_area = np.where(most > 0, area(control, entropy), NAN)
        return np.concatenate(
            [
                entropy,
                at_level(control, entropy, LEVELS),
                most[:, None],
                whole_area[:, None],
                most_within(control, entropy, self.limit)[:, None],
            ],
            1,
        )

    def _samples(
        self, stats: pd.DataFrame, curve: dict[str, np.ndarray], short: str, why: str
    ) -> pd.DataFrame:
        """Values of single starts at the last step, for pairing; a start without one is left out."""
        whole = stats["whole"].to_numpy() > 0
        parts = []
        for name, values, keep in (
            ("cd_end_control", curve["control"][:, -1], np.full(len(stats), not short)),
            ("cd_end_entropy", curve["entropy"][:, -1], whole & (not why)),
            ("cd_end_flips", stats["flips"].to_numpy(np.float64), whole & (not why)),
        ):
            parts.append(
                pd.DataFrame({"metric": name, "start": stats["start"][keep], "value": values[keep]})
            )
        return pd.concat(parts, ignore_index=True)[list(SAMPLE_COLUMNS)]
