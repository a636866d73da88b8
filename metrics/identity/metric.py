"""Identity preservation at matched effect: how alike an edited picture is to the original.

The number is the cosine between the embeddings of the two pictures (observation `feature_similarity`). It is compared at the
same achieved effect x on the target, in the bins of attribute dependency, never at the same step. With a face
recognition network it is the papers' identity preservation; without one the embedding is the judge's features, and the
metric is called by that name: the judge's features hold what tells its attributes apart, not who a person is.

A share of verified pictures stands beside it: those whose cosine is at least the verification threshold that the observation
wrote down (the cosine that 1 % of the pairs of different pictures exceed, or one published with the network).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from editbench.stats.first_crossing import at_effect
from editbench.stats.intervals import bootstrap_mean, bootstrap_ratios
from editbench.walk.metric import ROW_COLUMNS, SAMPLE_COLUMNS, Metric, MetricResult, row
from editbench.walk.trajectory import Trajectories

NAN = float("nan")
JUDGE = "judge_features"  # label of the judge's features
COLUMN, THRESHOLD = "similarity:", "similarity_threshold:"
MISSING = "no similarity was measured: run the job with observation=[feature_similarity]"


class Identity(Metric):
    """Rows: curves `judge_feature_similarity`, `judge_feature_verified` (x: bin centre, in sigmas; bootstrap over
    starts; n counts points), and where each walk first passes x* `judge_feature_similarity_at`,
    `judge_feature_verified_at` (n counts starts). With another network LABEL they are `identity_similarity[LABEL]` and
    so on. Samples: the last two.

    Args:
        at, stop, width, min_points, draws: as of editbench.metrics.attribute_dependency.AttributeDependency.
    """

    name = "identity"
    version = 1
    citation = (
        "Khrulkov et al.: Latent Transformations via NeuralODEs, ICCV 2021, A.4 (FaceNet embeddings); "
        "Schroff, Kalenichenko & Philbin: FaceNet, CVPR 2015 (verification)"
    )
    produces = {
        f"{name}_{kind}{end}": True
        for name in ("judge_feature", "identity")
        for kind in ("similarity", "verified")
        for end in ("", "_at")
    }

    def __init__(
        self,
        at: float = 1.0,
        stop: float = 3.0,
        width: float = 0.25,
        min_points: int = 30,
        draws: int = 2000,
    ) -> None:
        if not 0 < width <= stop or at <= 0:
            raise ValueError(
                f"need 0 < width <= stop and at > 0, got at={at}, width={width}, stop={stop}"
            )
        self.at, self.width, self.bins = float(at), float(width), round(stop / width)
        self.min_points, self.draws = int(min_points), int(draws)

    def update(self, trajectories: Trajectories) -> pd.DataFrame:
        """One row a start; for each network the sums of each bin and the values at x*."""
        table, x = trajectories.table, trajectories.effect
        begins = np.flatnonzero(table["step"].to_numpy() == 0)
        owner = np.searchsorted(begins, trajectories.first_row)
        stats: dict[str, np.ndarray] = {"start": table["start"].to_numpy(np.int64)[begins]}
        for column in (name for name in map(str, table) if name.startswith(COLUMN)):
            name = column.removeprefix(COLUMN)
            cosine = table[column].to_numpy(np.float64)
            threshold = table[THRESHOLD + name].to_numpy(np.float64)
            sound = table["finite"].to_numpy(bool) & np.isfinite(x) & np.isfinite(cosine)
            inside = np.flatnonzero(
                sound & (table["step"].to_numpy() > 0) & (x >= 0) & (x < self.bins * self.width)
            )
            cell = owner[inside] * self.bins + np.minimum(
                (x[inside] / self.width).astype(np.int64), self.bins - 1
            )
            parts = {
                "n": np.ones(len(inside)),
                "similarity": cosine[inside],
                "verified": (cosine >= threshold)[inside].astype(np.float64),
            }
            for part, values in parts.items():
                sums = np.bincount(cell, values, len(begins) * self.bins).reshape(-1, self.bins)
                stats |= {f"{name}/{part}/{b}": sums[:, b] for b in range(self.bins)}
            found = at_effect(x, cosine[:, None], owner, sound, self.at, len(begins))[:, 0]
            stats[f"{name}/similarity/at"] = found
            stats[f"{name}/verified/at"] = np.where(
                np.isfinite(found), found >= threshold[begins], NAN
            )
        return pd.DataFrame(stats)

    def compute(self, stats: pd.DataFrame) -> MetricResult:
        stats = stats.sort_values("start", kind="stable", ignore_index=True)
        names = list(
            dict.fromkeys(column.split("/")[0] for column in map(str, stats) if "/" in column)
        )
        rows, samples = (
            [],
            [
                pd.DataFrame(
                    {
                        "metric": pd.Series(dtype="str"),
                        "start": pd.Series(dtype="int64"),
                        "value": pd.Series(dtype="float64"),
                    }
                )
            ],
        )
        for name in names:
            counts = self._bins(stats, name, "n")
            n = counts.sum(0).astype(int)
            for kind in ("similarity", "verified"):
                sums = self._bins(stats, name, kind)
                low, high = bootstrap_ratios(sums, counts, draws=self.draws)
                for b in range(self.bins):
                    few = (
                        f"hidden: {n[b]} points are fewer than {self.min_points}"
                        if n[b] < self.min_points
                        else ""
                    )
                    rows.append(
                        row(
                            titled(name, kind),
                            float(sums[:, b].sum() / n[b]) if n[b] else NAN,
                            int(n[b]),
                            float(low[b]),
                            float(high[b]),
                            x=(b + 0.5) * self.width,
                            note=few,
                        )
                    )
                values = stats[f"{name}/{kind}/at"].to_numpy(np.float64)
                kept = np.isfinite(values)
                rows.append(
                    row(
                        titled(name, f"{kind}_at"),
                        float(values[kept].mean()) if kept.any() else NAN,
                        int(kept.sum()),
                        *bootstrap_mean(values, draws=self.draws),
                        x=self.at,
                        note="" if kept.any() else f"no start reaches x = {self.at:g}",
                    )
                )
                samples.append(
                    pd.DataFrame(
                        {
                            "metric": titled(name, f"{kind}_at"),
                            "start": stats["start"][kept],
                            "value": values[kept],
                        }
                    )
                )
        if not names:
            rows.append(
                row("judge_feature_similarity", NAN, 0, note=MISSING if len(stats) else "no starts")
            )
        return MetricResult(
            pd.DataFrame(rows, columns=list(ROW_COLUMNS)),
            pd.concat(samples, ignore_index=True)[list(SAMPLE_COLUMNS)],
        )

    def _bins(self, stats: pd.DataFrame, name: str, part: str) -> np.ndarray:
        return stats[[f"{name}/{part}/{b}" for b in range(self.bins)]].to_numpy(np.float64)


def titled(label: str, kind: str) -> str:
    """The name of a row: an embedding that is no identity does not get its name."""
    return f"judge_feature_{kind}" if label == JUDGE else f"identity_{kind}[{label}]"
