"""Control and disentanglement along a walk (Khrulkov et al. 2021, NeuralODE, eq. 6 and 7).

Every start is walked over the same grid of steps 0..S (S = 40: 41 points). Definitions, starting
with the paper's:

- control C(t): share of the starts to which the judge assigns the target class at step t (eq. 6).
  The authors' code counts a start from the first step at which its class has changed, to any class;
  this is `cd_control_ever`.
- entropy D(t): for each other attribute i the histogram of its classes at steps 0..t, its entropy
  divided by ln |A_i|, mean over the other attributes and the starts (eq. 7). D(0) = 0. It depends
  on the density of the grid, so S is fixed.
- D depends on when a class changes: a late change, or an early one that lasts, costs little.
  Therefore `cd_end_flips`, the share of other attributes whose class at step S differs from that at
  step 0, is reported too.
- The class at step 0 is the judge's on the start's own image.
- A walk that becomes NaN or infinite on the grid is a failure. By both definitions it is not
  controlled at any step, and it stays in the denominator of C. It has no histogram and is left out
  of D and the flips. A note gives the number of such walks.
- If walks were stopped before step S, at their crossing for example, no number is given.
- C need not increase with t. D as a function of C is evaluated where the mean curve first reaches a
  level (editbench.stats.first_crossing). `cd_area` is over [0, this method's largest C], so it
  cannot be compared with that of a method with more control. The report computes the area over the
  range that all methods share from `cd_control` and `cd_entropy`.
"""

from __future__ import annotations

import numpy as np

from editbench.base.errors import EditbenchError
from editbench.base.validation import check_at_least
from editbench.stats.first_crossing import area, at_level, most_within
from editbench.stats.intervals import (
    bootstrap_mean,
    percentiles,
    resampled_sums,
    wilson,
)
from editbench.walk.metric import NAN, Metric, MetricResult, ResultBuilder, start_rows
from editbench.walk.trajectory import Trajectories

LEVELS = np.arange(1, 21) / 20  # levels of control at which D is evaluated
SCALARS = ("cd_max_control", "cd_area", "cd_control_at")


class ControlDisentanglement(Metric):
    """Control C and entropy D along the walk, and D as a function of C.

    Rows:
        cd_control, cd_control_ever: curves, x: step; shares of all starts, Wilson intervals.
        cd_entropy: curve, x: step. cd_entropy_at: curve, x: level of control.
        cd_max_control: largest control. cd_area: area under D(C).
        cd_control_at: the largest control on the curve where D is at most `limit`.
        cd_end_flips: share of other attributes with another class at the last step.
        All intervals but Wilson's resample starts. That of a cd_max_control of 0 or 1 is Wilson's.
    Samples: cd_end_control, cd_end_entropy, cd_end_flips of each start at step S.

    States:
        start: (n,) start ids.
        whole: (n,) 0 or 1, whether the walk is finite up to step S.
        cut: (n,) 0 or 1, whether it ends earlier.
        others: (n,) number of other attributes, A - 1.
        flips: (n,) share of other attributes that changed; 0 if the walk is not whole.
        control: (n, S + 1) 0 or 1, whether the class is the target at this step.
        ever: (n, S + 1) 0 or 1, whether the class has changed by this step.
        entropy: (n, S + 1); 0 if the walk is not whole.

    Args:
        steps: S.
        limit: of D, for `cd_control_at`.
        draws: bootstrap draws.
    """

    name = "control_disentanglement"
    version = 1
    citation = (
        "Khrulkov, Mirvakhabova, Oseledets & Babenko: Latent Transformations via NeuralODEs, "
        "ICCV 2021, eq. 6-7"
    )
    higher_is_better = True
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
        check_at_least("steps", steps, 1)
        if not 0 <= limit <= 1:
            raise EditbenchError(f"limit={limit} must lie in [0, 1]")
        check_at_least("draws", draws, 1)
        super().__init__()
        self.steps = int(steps)
        self.limit = float(limit)
        self.draws = int(draws)
        self.terms = entropy_terms(self.steps)
        self.add_columns("start", "whole", "cut", "others", "flips", "control", "ever", "entropy")

    def update(self, trajectories: Trajectories) -> None:
        table = trajectories.table
        size = self.steps + 1
        begins, owner = start_rows(trajectories)
        n = len(begins)
        step = table["step"].to_numpy(np.int64)
        sound = table["finite"].to_numpy(bool) & np.isfinite(trajectories.logits).all(1)
        rows = np.flatnonzero(sound & (step < size))
        # Rows of the table become a grid of starts and steps, so that no loop over starts is needed.
        classes = np.zeros((n, size, len(trajectories.attributes)), np.int64)
        classes[owner[rows], step[rows]] = trajectories.labels[rows]
        # All steps from 0 to S exist and are finite.
        whole = np.bincount(owner[rows], minlength=n) == size
        broken = np.bincount(owner, ~sound & (step < size), n) > 0

        # Control: of the target attribute. A walk that is not whole is never controlled.
        place = trajectories.attributes.index(trajectories.attribute)
        mine = classes[:, :, place]
        target = table["target"].to_numpy(np.int64)[begins]
        control = (mine == target[:, None]) & whole[:, None]
        ever = np.maximum.accumulate(mine != mine[:, :1], 1) & whole[:, None]

        # Entropy and flips: of all others.
        others = [i for i in range(len(trajectories.attributes)) if i != place]
        entropy = np.zeros((n, size))
        flips = np.zeros(n)
        for i in others:
            entropy += self._entropy(classes[:, :, i], len(trajectories.attributes[i].classes))
            flips += classes[:, -1, i] != classes[:, 0, i]
        # Means over the other attributes; 0 for a walk that is left out.
        scale = whole / max(len(others), 1)
        self.append(
            start=table["start"].to_numpy(np.int64)[begins],
            whole=whole.astype(np.float64),
            cut=(~whole & ~broken).astype(np.float64),
            others=np.full(n, float(len(others))),
            flips=flips * scale,
            control=control.astype(np.float64),
            ever=ever.astype(np.float64),
            entropy=entropy * scale[:, None],
        )

    def _entropy(self, classes: np.ndarray, count: int) -> np.ndarray:
        """Normalised entropy of the histogram of classes up to each step (eq. 7).

        Args:
            classes: (n, S + 1) class at each step.
            count: number of classes.

        Returns:
            (n, S + 1), from 0 to 1.
        """
        moments = np.arange(classes.shape[1])
        # The entropy terms are tabulated by count and step, so the histogram up to each step is a
        # single cumulative sum.
        total = np.zeros(classes.shape)
        for value in range(count):
            total += self.terms[(classes == value).cumsum(1), moments]
        return total / np.log(count)

    def compute(self) -> MetricResult:
        found = self.sorted_columns("whole", "cut", "others", "flips", "control", "ever", "entropy")
        n = len(found["start"])
        whole = found["whole"]
        kept = int(whole.sum())
        short = self._short(found)
        why = short or self._why(found)
        lost = ""
        if kept < n:
            lost = (
                f"{n - kept} of {n} walks diverged: not controlled, and without part in the entropy"
            )

        out = ResultBuilder()
        for name, column in (("cd_control", "control"), ("cd_control_ever", "ever")):
            for t, hits in enumerate(found[column].sum(0).astype(int)):
                if short:
                    out.add(name, NAN, n, note=short, x=t)
                else:
                    out.add(name, hits / n, n, wilson(int(hits), n), x=t)
        self._add_entropy(out, found, why, lost)
        if why:
            out.add("cd_end_flips", NAN, kept, note=why)
        else:
            flips = found["flips"][whole > 0]
            interval = bootstrap_mean(flips, draws=self.draws)
            out.add("cd_end_flips", flips.mean(), kept, interval, lost)
        self._add_samples(out, found, short, why)
        return out.result()

    def _short(self, found: dict[str, np.ndarray]) -> str:
        """Why there is no number at all, not even for control, or ''."""
        n = len(found["start"])
        if not n:
            return "no starts"
        cut = int(found["cut"].sum())
        if cut:
            return (
                f"{cut} of {n} walks end before step {self.steps}: set engine.max_steps and "
                f"engine.sweep_steps to {self.steps}"
            )
        return ""

    def _why(self, found: dict[str, np.ndarray]) -> str:
        """Why there are no numbers for entropy and flips although there are for control, or ''."""
        if len(found["start"]) and not found["others"].any():
            return "one attribute only: there is no other to change"
        return "" if found["whole"].any() else "every walk diverged"

    def _add_entropy(
        self, out: ResultBuilder, found: dict[str, np.ndarray], why: str, lost: str
    ) -> None:
        """Add D over steps and over control, and the three scalars; NaN with the reason `why`."""
        size = self.steps + 1
        n = len(found["start"])
        kept = int(found["whole"].sum())
        keys = [("cd_entropy", float(t)) for t in range(size)]
        keys += [("cd_entropy_at", float(level)) for level in LEVELS]
        keys += [(name, NAN) for name in SCALARS]
        counts = [n if name == "cd_max_control" else kept for name, _ in keys]
        mean = low = high = np.full(len(keys), NAN)
        if not why:
            # All numbers share the draws of starts, so that D over C gets an interval too.
            columns = np.concatenate(
                [found["control"], found["entropy"], found["whole"][:, None]], 1
            )
            mean = self._summary(columns.sum(0)[None], n)[0]
            low, high = percentiles(self._summary(resampled_sums(columns, self.draws), n))
            # Resampling a single start says nothing about other starts.
            known = np.isfinite(mean) & (np.array(counts) > 1)
            low = np.where(known, low, NAN)
            high = np.where(known, high, NAN)
        for place, (name, x) in enumerate(keys):
            note = why or self._remark(name, mean[place])
            if name in SCALARS and not note:
                note = lost
            interval = (low[place], high[place])
            # Resampling equal outcomes says nothing about outcomes that were not seen.
            if name == "cd_max_control" and mean[place] in (0.0, 1.0):
                interval = wilson(mean[place] * n, n)
            out.add(name, mean[place], counts[place], interval, note, x=x)

    def _remark(self, name: str, value: float) -> str:
        """Why one number of the entropy is missing, or ''."""
        if np.isfinite(value):
            return ""
        if name == "cd_area":
            return "never controlled: there is no range to take it over"
        if name == "cd_entropy_at":
            return "this much control is never reached"
        return ""

    def _summary(self, sums: np.ndarray, n: int) -> np.ndarray:
        """Numbers of each bootstrap draw.

        Args:
            sums: (draws, 2 (S + 1) + 1) sums of control, entropy, whole.
            n: number of starts.

        Returns:
            (draws, S + 1 + levels + 3): entropy, entropy at levels of control, SCALARS.
        """
        size = self.steps + 1
        with np.errstate(invalid="ignore", divide="ignore"):
            control = sums[:, :size] / n
            entropy = sums[:, size : 2 * size] / sums[:, 2 * size :]
        most = control.max(1)
        whole_area = np.where(most > 0, area(control, entropy), NAN)
        # A method without any control has no range of C for an area.
        within = most_within(control, entropy, self.limit)
        scalars = np.stack([most, whole_area, within], 1)
        return np.concatenate([entropy, at_level(control, entropy, LEVELS), scalars], 1)

    def _add_samples(
        self, out: ResultBuilder, found: dict[str, np.ndarray], short: str, why: str
    ) -> None:
        """Add the starts' values at the last step; a start without a value is left out."""
        start = found["start"]
        if not short:
            out.add_samples("cd_end_control", start, found["control"][:, -1])
        if not why:
            whole = found["whole"] > 0
            out.add_samples("cd_end_entropy", start[whole], found["entropy"][whole, -1])
            out.add_samples("cd_end_flips", start[whole], found["flips"][whole])


def entropy_terms(steps: int) -> np.ndarray:
    """(count, t): -p ln p of the share p = count / (t + 1) of a class among the steps 0..t."""
    moments = np.arange(1, steps + 2)
    count = np.arange(steps + 2)
    share = np.minimum(count[:, None] / moments, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(share > 0, -share * np.log(share), 0.0)
