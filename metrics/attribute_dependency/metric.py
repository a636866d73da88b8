"""Attribute dependency: how much the other attributes change, at matched achieved effect (StyleSpace; GradCtrl Fig. 6).

With x = s * (l_k - l_k at step 0) / sigma_k towards the target (s its sign), AD averages |l_i - l_i at step 0| /
sigma_i over the other attributes i. Choices, where the papers leave room:

- Changes enter by magnitude: signed ones cancel, and an editor that ruins two attributes in opposite directions would
  score 0. The signed mean is reported as well, for reading bias only.
- Points are all sound rows after step 0, whatever the editor's unit; bins are of x, half-open, 0 to 3 by 0.25.
- Rows with x < 0 are counted as going the wrong way and are not folded into |x|.
- sigma is the bank's, so that no editor is judged by the spread of its own results.
- `ad_at` reads AD where each walk first passes x*, on the straight line between its two decoded neighbours (changes
  are interpolated, magnitudes taken after); starts that never get there are not in its n.
- Under a 10 % success rate the paper leaves a method out of the plot: the value stays here, with a note.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from editbench.stats.first_crossing import at_effect
from editbench.stats.intervals import bootstrap_mean, bootstrap_ratios
from editbench.walk.metric import ROW_COLUMNS, SAMPLE_COLUMNS, Metric, MetricResult, row
from editbench.walk.trajectory import Trajectories

CURVES = ("ad", "ad_signed", "ad_max")
EMPTY = float("nan")


class AttributeDependency(Metric):
    """Rows: curves `ad`, `ad_signed`, `ad_max` (x: bin centre, in sigmas; bootstrap over starts), `ad_at` (x: x*),
    `wrong_direction` (number of rows with x < 0). n counts points; for `ad_at` starts. Samples: `ad_at`.

    Args:
        at: matched effect x*, in sigmas.
        stop, width: bins cover [0, stop) in steps of `width`.
        min_points: bins with fewer points carry a note that hides them.
        min_success: below this share of crossed starts every row carries a note.
        draws: bootstrap draws.
    """

    name = "attribute_dependency"
    version = 1
    citation = "Wu, Lischinski & Shechtman: StyleSpace Analysis, CVPR 2021; Chen et al.: GradCtrl, ECCV 2022, Fig. 7a"
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
    ) -> None:
        if not 0 < width <= stop or at <= 0:
            raise ValueError(
                f"need 0 < width <= stop and at > 0, got width={width}, stop={stop}, at={at}"
            )
        self.at, self.width, self.bins = float(at), float(width), round(stop / width)
        self.min_points, self.min_success, self.draws = (
            int(min_points),
            float(min_success),
            int(draws),
        )

    def update(self, trajectories: Trajectories) -> pd.DataFrame:
        """One row a start: success, others (A - 1), wrong, at, and for bin b: n:b and the sums of each curve."""
        table, x = trajectories.table, trajectories.effect
        begins = np.flatnonzero(table["step"].to_numpy() == 0)
        owner = np.searchsorted(begins, trajectories.first_row)
        signed = trajectories.dependency(signed=True)
        sound = table["finite"].to_numpy(bool) & np.isfinite(x) & np.isfinite(signed).all(1)
        success = np.bincount(owner, table["stopped"].to_numpy(bool) & sound, len(begins)) > 0
        moved = sound & (table["step"].to_numpy() > 0)
        stats: dict[str, np.ndarray] = {
            "start": table["start"].to_numpy(np.int64)[begins],
            "success": success.astype(np.float64),
            "others": np.full(len(begins), float(signed.shape[1])),
            "points": np.bincount(owner, moved, len(begins)),
            "wrong": np.bincount(owner, moved & (x < 0), len(begins)),
            "at": np.full(len(begins), EMPTY),
        }
        values = dict.fromkeys(CURVES, np.zeros(len(table)))
        if signed.shape[1]:
            size = np.abs(signed)
            values = {"ad": size.mean(1), "ad_signed": signed.mean(1), "ad_max": size.max(1)}
            stats["at"] = np.abs(at_effect(x, signed, owner, sound, self.at, len(begins))).mean(1)
        inside = np.flatnonzero(moved & (x >= 0) & (x < self.bins * self.width))
        place = np.minimum((x[inside] / self.width).astype(np.int64), self.bins - 1)
        cell, cells = owner[inside] * self.bins + place, len(begins) * self.bins
        columns = {"n": np.bincount(cell, minlength=cells).astype(np.float64)}
        columns |= {
            name: np.bincount(cell, values[name][inside], cells).astype(np.float64)
            for name in CURVES
        }
        for name, flat in columns.items():
            stats |= {f"{name}:{b}": flat.reshape(-1, self.bins)[:, b] for b in range(self.bins)}
        return pd.DataFrame(stats)

    def compute(self, stats: pd.DataFrame) -> MetricResult:
        stats = stats.sort_values("start", kind="stable", ignore_index=True)
        note = self._note(stats)
        counts = stats[[f"n:{b}" for b in range(self.bins)]].to_numpy(np.float64)
        n = counts.sum(0).astype(int)
        alone = bool(len(stats)) and not stats["others"].to_numpy().any()
        rows = []
        for name in CURVES:
            sums = stats[[f"{name}:{b}" for b in range(self.bins)]].to_numpy(np.float64)
            low, high = bootstrap_ratios(sums, counts, draws=self.draws)
            with np.errstate(invalid="ignore", divide="ignore"):
                value = np.where((n > 0) & ~np.bool_(alone), sums.sum(0) / counts.sum(0), EMPTY)
            for b in range(self.bins):
                few = (
                    f"hidden: {n[b]} points are fewer than {self.min_points}"
                    if n[b] < self.min_points
                    else ""
                )
                interval = (EMPTY, EMPTY) if alone else (float(low[b]), float(high[b]))
                rows.append(
                    row(
                        name,
                        float(value[b]),
                        int(n[b]),
                        *interval,
                        x=(b + 0.5) * self.width,
                        note="; ".join(filter(None, (note, few))),
                    )
                )
        reached = stats[np.isfinite(stats["at"].to_numpy(np.float64))]
        at = reached["at"].to_numpy(np.float64)
        few = f"no start reaches x = {self.at:g}" if not len(at) and not alone else ""
        rows.append(
            row(
                "ad_at",
                float(at.mean()) if len(at) else EMPTY,
                len(at),
                *bootstrap_mean(at, draws=self.draws),
                x=self.at,
                note="; ".join(filter(None, (note, few))),
            )
        )
        rows.append(row("wrong_direction", float(stats["wrong"].sum()), int(stats["points"].sum())))
        samples = pd.DataFrame({"metric": "ad_at", "start": reached["start"], "value": at})
        return MetricResult(
            pd.DataFrame(rows, columns=list(ROW_COLUMNS)),
            samples[list(SAMPLE_COLUMNS)].reset_index(drop=True),
        )

    def _note(self, stats: pd.DataFrame) -> str:
        if not len(stats):
            return "no starts"
        if not stats["others"].to_numpy().any():
            return "one attribute only: there is no other to depend on"
        rate = float(stats["success"].mean())
        if rate < self.min_success:
            return f"excluded: the success rate {100 * rate:.1f} % is below {100 * self.min_success:g} %"
        return ""
