"""Attribute dependency: how much the other attributes change, at matched achieved effect.

From StyleSpace (Wu et al. 2021) and GradCtrl (Chen et al. 2022, Fig. 6 and 7a). With
x = s * (l_k - l_k at step 0) / sigma_k towards the target (s its sign), AD averages
|l_i - l_i at step 0| / sigma_i over the other attributes i. Choices, where the papers leave room:

- Changes enter by magnitude. Signed ones cancel, and an editor that ruins two attributes in
  opposite directions would score 0. The signed mean is reported as well, for reading bias only.
- Bins are of x, half-open, 0 to 3 by 0.25. A start counts once in a bin: its walk is read where it
  first passes the centre of the bin, on the straight line between its two decoded neighbours
  (changes are interpolated, magnitudes taken after). A walk that never gets there gives nothing to
  the bin. So every start of a bin is read at the same effect, whatever the length of a step, and a
  walk that lingers weighs no more than one that passes quickly.
- `pooling='rows'` is the grouping of the papers' text, over edited images: every sound row after
  step 0 is a point of the bin that it lies in. A walk that never crosses then gives several times
  the points of one that does, so a curve says more about the walks that fail.
- Rows with x < 0 are counted as going the wrong way and are not folded into |x|.
- sigma is the bank's, so that no editor is judged by the spread of its own results.
- `ad_at` reads AD where each walk first passes x*, in the same way.
- Under a 10 % success rate the paper leaves a method out of the plot: the value stays here, with a
  note.
"""

from __future__ import annotations

import numpy as np

from editbench.base.validation import check_at_least, check_choice, check_multiple, check_positive
from editbench.stats.first_crossing import at_effect
from editbench.stats.intervals import NO_INTERVAL, bootstrap_mean, bootstrap_ratios
from editbench.walk.metric import (
    NAN,
    Metric,
    MetricResult,
    ResultBuilder,
    join_notes,
    mean_of,
    start_rows,
)
from editbench.walk.trajectory import Trajectories

CURVES = ("ad", "ad_signed", "ad_max")
POOLINGS = ("passage", "rows")


class AttributeDependency(Metric):
    """Mean, signed and largest change of the other attributes over the achieved effect.

    Rows:
        ad, ad_signed, ad_max: curves; x is the centre of a bin in sigmas, count the number of
            starts that the bin is over (with pooling='rows', of points), the interval a bootstrap
            over starts.
        ad_at: at x = x*; count is the number of starts that get there.
        wrong_direction: number of rows with x < 0; count is the number of all points.
    Samples: ad_at.

    States:
        start: (n,) start ids.
        success: (n,) 0 or 1, whether the walk crossed.
        others: (n,) number of other attributes, A - 1.
        points, wrong: (n,) number of sound rows after step 0, and of those with x < 0.
        at: (n,) AD at x*, NaN where the walk does not get there.
        in_bin: (n, bins) 1 where the walk passes the bin's centre, or its number of points.
        ad, ad_signed, ad_max: (n, bins) sums over what is counted in in_bin.

    Args:
        at: matched effect x*, in sigmas.
        stop: bins cover [0, stop), in sigmas; a multiple of width.
        width: of a bin, in sigmas.
        min_points: bins of fewer starts (or points) carry a note that hides them.
        min_success: below this share of crossed starts every row carries a note.
        draws: bootstrap draws.
        pooling: 'passage' counts a start once in a bin, 'rows' every row in it; see the module.
    """

    name = "attribute_dependency"
    version = 2
    citation = (
        "Wu, Lischinski & Shechtman: StyleSpace Analysis, CVPR 2021; "
        "Chen et al.: GradCtrl, ECCV 2022, Fig. 7a"
    )
    higher_is_better = False
    produces = {
        "ad": False,
        "ad_signed": None,
        "ad_max": False,
        "ad_at": False,
        "wrong_direction": False,
    }

    def __init__(
        self,
        at: float = 1.0,
        stop: float = 3.0,
        width: float = 0.25,
        min_points: int = 30,
        min_success: float = 0.1,
        draws: int = 2000,
        pooling: str = "passage",
    ) -> None:
        check_positive("at", at)
        check_positive("width", width)
        check_at_least("stop", stop, width)
        check_multiple("stop", stop, "width", width)
        check_choice("pooling", pooling, POOLINGS)
        super().__init__()
        self.x_star = float(at)
        self.width = float(width)
        self.bins = round(stop / width)
        self.min_points = int(min_points)
        self.min_success = float(min_success)
        self.draws = int(draws)
        self.pooling = pooling
        self.add_columns("start", "success", "others", "points", "wrong", "at", "in_bin", *CURVES)

    def update(self, trajectories: Trajectories) -> None:
        table = trajectories.table
        x = trajectories.effect
        begins, owner = start_rows(trajectories)
        n = len(begins)
        signed = trajectories.dependency(signed=True)
        # A step that went NaN has no effect and no change; the walk's earlier steps still count.
        sound = table["finite"].to_numpy(bool) & np.isfinite(x) & np.isfinite(signed).all(1)
        success = np.bincount(owner, table["stopped"].to_numpy(bool) & sound, n) > 0
        # Step 0 is the start itself, with no effect by definition.
        moved = sound & (table["step"].to_numpy() > 0)

        # Interpolated with its sign, so that a change that passes 0 is small there.
        at = np.abs(at_effect(x, signed, owner, sound, self.x_star, n))
        if self.pooling == "passage":
            sums = self._passages(x, signed, owner, sound, n)
        else:
            sums = self._points(x, signed, owner, moved, n)
        self.append(
            start=table["start"].to_numpy(np.int64)[begins],
            success=success.astype(np.float64),
            others=np.full(n, float(signed.shape[1])),
            points=np.bincount(owner, moved, n),
            wrong=np.bincount(owner, moved & (x < 0), n),
            # A world of one attribute has no other: nothing is averaged.
            at=at.mean(1) if signed.shape[1] else np.full(n, NAN),
            **sums,
        )

    def _passages(
        self,
        x: np.ndarray,
        signed: np.ndarray,
        owner: np.ndarray,
        sound: np.ndarray,
        n: int,
    ) -> dict[str, np.ndarray]:
        """in_bin and CURVES, each (n, bins), of every start at its first passage of a centre."""
        sums = {name: np.zeros((n, self.bins)) for name in ("in_bin", *CURVES)}
        if not signed.shape[1]:
            return sums
        for b in range(self.bins):
            found = at_effect(x, signed, owner, sound, self._centre(b), n)
            passed = np.isfinite(found).all(1)
            sums["in_bin"][:, b] = passed
            # A start that never gets to the centre adds neither to the sum nor to the count.
            for name, values in _curves(found[passed]).items():
                sums[name][passed, b] = values
        return sums

    def _points(
        self,
        x: np.ndarray,
        signed: np.ndarray,
        owner: np.ndarray,
        moved: np.ndarray,
        n: int,
    ) -> dict[str, np.ndarray]:
        """in_bin and CURVES, each (n, bins), of every row in the bin that it lies in."""
        # A cell is a bin of one start. The last bin takes what rounding pushes beyond its end.
        inside = np.flatnonzero(moved & (x >= 0) & (x < self.bins * self.width))
        place = np.minimum((x[inside] / self.width).astype(np.int64), self.bins - 1)
        cell = owner[inside] * self.bins + place
        cells = n * self.bins
        sums: dict[str, np.ndarray] = {"in_bin": np.bincount(cell, minlength=cells).astype(float)}
        for name in CURVES:
            sums[name] = np.zeros(cells)
        if signed.shape[1]:
            for name, values in _curves(signed[inside]).items():
                sums[name] = np.bincount(cell, values, cells)
        return {name: flat.reshape(n, self.bins) for name, flat in sums.items()}

    def _centre(self, b: int) -> float:
        """Effect at the centre of a bin, in sigmas."""
        return (b + 0.5) * self.width

    def compute(self) -> MetricResult:
        found = self.sorted_columns("success", "others", "points", "wrong", "at", "in_bin", *CURVES)
        note = self._note(found)
        alone = bool(len(found["start"])) and not found["others"].any()
        out = ResultBuilder()
        for name in CURVES:
            self._add_curve(out, name, found, alone, note)

        reached = np.isfinite(found["at"])
        at = found["at"][reached]
        few = ""
        if not len(at) and not alone:
            few = f"no start reaches x = {self.x_star:g}"
        # Starts are resampled and not points: the points of one walk depend on one another.
        interval = bootstrap_mean(at, draws=self.draws)
        out.add("ad_at", mean_of(at), len(at), interval, join_notes(note, few), x=self.x_star)
        out.add_samples("ad_at", found["start"], found["at"], x=self.x_star)
        out.add("wrong_direction", float(found["wrong"].sum()), int(found["points"].sum()))
        return out.result()

    def _add_curve(
        self,
        out: ResultBuilder,
        name: str,
        found: dict[str, np.ndarray],
        alone: bool,
        note: str,
    ) -> None:
        """Add one row a bin."""
        counts = found["in_bin"]
        n = counts.sum(0).astype(int)
        sums = found[name]
        counted = "starts" if self.pooling == "passage" else "points"
        low, high = bootstrap_ratios(sums, counts, draws=self.draws)
        # An empty bin divides 0 by 0; its value is NaN, and its note says why.
        with np.errstate(invalid="ignore", divide="ignore"):
            value = np.where((n > 0) & ~np.bool_(alone), sums.sum(0) / counts.sum(0), NAN)
        for b in range(self.bins):
            few = ""
            if n[b] < self.min_points:
                few = f"hidden: {n[b]} {counted} are fewer than {self.min_points}"
            interval = NO_INTERVAL if alone else (float(low[b]), float(high[b]))
            notes = join_notes(note, few)
            out.add(name, value[b], int(n[b]), interval, notes, x=self._centre(b))

    def _note(self, found: dict[str, np.ndarray]) -> str:
        """Why no number of this run should be read, or ''."""
        if not len(found["start"]):
            return "no starts"
        if not found["others"].any():
            return "one attribute only: there is no other to depend on"
        # Of an editor that hardly moves anything the dependency is small for want of an edit.
        rate = float(found["success"].mean())
        if rate < self.min_success:
            return (
                f"excluded: the success rate {100 * rate:.1f} % is below "
                f"{100 * self.min_success:g} %"
            )
        return ""


def _curves(signed: np.ndarray) -> dict[str, np.ndarray]:
    """Each of CURVES of signed changes (n, others), in sigmas: (n,)."""
    size = np.abs(signed)
    return {"ad": size.mean(1), "ad_signed": signed.mean(1), "ad_max": size.max(1)}
