"""Attribute dependency: how much the other attributes change, at matched achieved effect.

From StyleSpace (Wu et al. 2021) and GradCtrl (Chen et al. 2022, Fig. 6 and 7a). With
x = s * (l_k - l_k at step 0) / sigma_k towards the target (s its sign), AD averages
|l_i - l_i at step 0| / sigma_i over the other attributes i. Choices that the papers leave open:

- AD uses magnitudes. Signed changes would cancel, and an editor that damages two attributes in
  opposite directions would score 0. The signed mean is reported too, but only as a sign of bias.
- Bins are half-open intervals of x, 0 to 3 in steps of 0.25. A start counts once per bin: its walk
  is evaluated where it first passes the centre of the bin, by linear interpolation between the two
  decoded steps around it (changes are interpolated, then magnitudes are taken). A walk that never
  gets there does not contribute to the bin. All starts of a bin are thus evaluated at the same
  effect for any step length, and a slow walk has no more weight than a fast one.
- `pooling='rows'` groups edited images as the papers' text does: every finite row after step 0 is a
  point in the bin that contains it. A walk that never crosses then has several times as many points
  as one that does, so the curves are dominated by failing walks.
- Rows with x < 0 are counted as moving in the wrong direction; |x| is not used for them.
- sigma is that of the bank, so it does not depend on an editor's own results.
- `ad_at` is AD where each walk first passes x*, evaluated in the same way.
- The paper omits methods with a success rate below 10 % from the plot. Here the value is kept, with
  a note.
"""

from __future__ import annotations

import numpy as np

from editbench.base.validation import check_at_least, check_choice, check_positive
from editbench.stats.first_crossing import at_effect
from editbench.stats.intervals import NO_INTERVAL, bootstrap_mean, bootstrap_ratios
from editbench.walk.metric import (
    NAN,
    Metric,
    MetricResult,
    ResultBuilder,
    count_bins,
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
            starts in the bin (with pooling='rows', of points), the interval a bootstrap over
            starts.
        ad_at: at x = x*; count is the number of starts that reach it.
        wrong_direction: number of rows with x < 0; count is the number of all points.
    Samples: ad_at.

    States:
        start: (n,) start ids.
        success: (n,) 0 or 1, whether the walk crossed.
        others: (n,) number of other attributes, A - 1.
        points, wrong: (n,) number of finite rows after step 0, and of those with x < 0.
        at: (n,) AD at x*; NaN if the walk does not reach it.
        in_bin: (n, bins) 1 if the walk passes the bin's centre, or its number of points.
        ad, ad_signed, ad_max: (n, bins) sums over the points counted in in_bin.

    Args:
        at: matched effect x*, in sigmas.
        stop: bins cover [0, stop), in sigmas; a multiple of width.
        width: of a bin, in sigmas.
        min_points: bins with fewer starts (or points) get a note that hides them.
        min_success: if fewer than this share of starts crossed, every row gets a note.
        draws: number of bootstrap draws.
        pooling: 'passage' counts a start once per bin, 'rows' counts every row; see the module's
            docstring.
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
        check_choice("pooling", pooling, POOLINGS)
        check_at_least("draws", draws, 1)
        check_at_least("min_success", min_success, 0)
        super().__init__()
        self.x_star = float(at)
        self.width = float(width)
        self.bins = count_bins(stop, width)
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
        # A step that became NaN has no effect or change; the walk's earlier steps still count.
        sound = table["finite"].to_numpy(bool) & np.isfinite(x) & np.isfinite(signed).all(1)
        success = np.bincount(owner, table["stopped"].to_numpy(bool) & sound, n) > 0
        # Step 0 is the start itself, with no effect by definition.
        moved = sound & (table["step"].to_numpy() > 0)

        # Interpolated before taking magnitudes, so that a change that passes 0 is small there.
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
            # With a single attribute there is nothing to average.
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
        """in_bin and CURVES, each (n, bins), of every start where it first passes each centre."""
        sums = {name: np.zeros((n, self.bins)) for name in ("in_bin", *CURVES)}
        if not signed.shape[1]:
            return sums
        for b in range(self.bins):
            found = at_effect(x, signed, owner, sound, self._centre(b), n)
            passed = np.isfinite(found).all(1)
            sums["in_bin"][:, b] = passed
            # A start that never reaches the centre adds neither to the sum nor to the count.
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
        """in_bin and CURVES, each (n, bins), with every row in the bin that contains it."""
        # A cell is a bin of one start. The last bin includes what rounding puts beyond its end.
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
        # Starts are resampled instead of points, since the points of a walk are dependent.
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
        """Add one row per bin."""
        counts = found["in_bin"]
        n = counts.sum(0).astype(int)
        sums = found[name]
        counted = "starts" if self.pooling == "passage" else "points"
        low, high = bootstrap_ratios(sums, counts, draws=self.draws)
        # An empty bin divides 0 by 0; its value is NaN, and its note gives the reason.
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
        """Why no number of this run should be relied on, or ''."""
        if not len(found["start"]):
            return "no starts"
        if not found["others"].any():
            return "one attribute only: there is no other to depend on"
        # An editor that changes hardly anything has a small dependency for lack of an edit.
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
