"""Every metric at matched effect: what an edit has cost when it has moved the target by x = 0.5, 1, 1.5, 2 sigma.

Methods have other units and other speeds, so that nothing can be compared at the same step. Here each walk is read
where it first passes an achieved effect x*, on the straight line between its two decoded neighbours
(editbench.stats.first_crossing). All quantities are interpolated first: magnitudes and labels are taken of the interpolated logits.
The sets of starts that reach an effect differ between methods: `matched_reached` says how many do, and differences
between methods are paired on the starts that both have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from editbench.stats.first_crossing import at_effect
from editbench.stats.intervals import bootstrap_mean, wilson
from editbench.walk.metric import ROW_COLUMNS, SAMPLE_COLUMNS, Metric, MetricResult, row
from editbench.walk.trajectory import Trajectories

NAN = float("nan")
KINDS = ("ad", "ad_max", "flips", "path")  # and what observations measured
SIMILARITY = "similarity:"


class MatchedEffect(Metric):
    """Rows, x: effect in sigmas: `matched_ad`, `matched_ad_max` (mean and largest change of the others, in sigmas),
    `matched_flips` (share of the other attributes with another class than at step 0), `matched_path` (length walked,
    in the editor's unit), `matched_similarity[NETWORK]`, `matched_pixel_distance` (to the original; only with the
    observations feature_similarity, pixel_distance): means over the starts that reach x, bootstrap intervals;
    `matched_reached` (share of all starts that do, Wilson). Samples: `NAME@x`, a value a start.

    Args:
        effects: x*, in sigmas.
        min_starts: fewer that reach an effect carry a note.
        draws: bootstrap draws.
    """

    name = "matched_effect"
    version = 1
    citation = (
        "Wu, Lischinski & Shechtman: StyleSpace Analysis, CVPR 2021 (comparison at equal effect)"
    )
    produces = {
        "matched_ad": False,
        "matched_ad_max": False,
        "matched_flips": False,
        "matched_path": None,
        "matched_similarity": True,
        "matched_pixel_distance": False,
        "matched_reached": True,
    }

    def __init__(
        self,
        effects: Sequence[float] = (0.5, 1.0, 1.5, 2.0),
        min_starts: int = 30,
        draws: int = 2000,
    ) -> None:
        if not effects or min(effects) <= 0 or len(set(effects)) < len(effects):
            raise ValueError(f"effects must be different and above 0, got {list(effects)}")
        self.effects = sorted(float(effect) for effect in effects)
        self.min_starts, self.draws = int(min_starts), int(draws)

    def update(self, trajectories: Trajectories) -> pd.DataFrame:
        """One row a start; column 'KIND@x', NaN where the walk never gets there or nothing was measured."""
        table, x, attributes = trajectories.table, trajectories.effect, trajectories.attributes
        begins = np.flatnonzero(table["step"].to_numpy() == 0)
        owner = np.searchsorted(begins, trajectories.first_row)
        signed, logits = trajectories.dependency(signed=True), trajectories.logits
        columns = {"path": "path", "pixel_distance": "pixel_distance"} | {
            f"similarity[{name.removeprefix(SIMILARITY)}]": name
            for name in map(str, table)
            if name.startswith(SIMILARITY)
        }
        extra = {
            kind: table[column].to_numpy(np.float64)
            for kind, column in columns.items()
            if column in table
        }
        sound = table["finite"].to_numpy(bool) & np.isfinite(x) & np.isfinite(logits).all(1)
        others = [
            place for place, name in enumerate(attributes.names) if name != trajectories.attribute
        ]
        stacked = np.concatenate(
            [signed, logits, *(values[:, None] for values in extra.values())], 1
        )
        width = signed.shape[1]
        stats: dict[str, np.ndarray] = {"start": table["start"].to_numpy(np.int64)[begins]}
        for effect in self.effects:
            found = at_effect(x, stacked, owner, sound, effect, len(begins))
            reached = np.isfinite(found[:, width])
            stats[f"reached@{effect:g}"] = reached.astype(np.float64)
            values = {kind: np.full(len(begins), NAN) for kind in KINDS}
            if width:
                change = np.abs(found[:, :width])
                labels = attributes.labels(
                    torch.tensor(found[:, width : width + logits.shape[1]])
                ).numpy()
                flips = (labels != trajectories.labels[begins])[:, others].mean(1)
                values |= {
                    "ad": change.mean(1),
                    "ad_max": change.max(1),
                    "flips": np.where(reached, flips, NAN),
                }
            first = width + logits.shape[1]
            values |= {kind: found[:, first + place] for place, kind in enumerate(extra)}
            stats |= {f"{kind}@{effect:g}": column for kind, column in values.items()}
        return pd.DataFrame(stats)

    def compute(self, stats: pd.DataFrame) -> MetricResult:
        stats = stats.sort_values("start", kind="stable", ignore_index=True)
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
        kinds = dict.fromkeys(str(name).rpartition("@")[0] for name in stats if name != "start")
        kinds.pop("reached")
        for effect in self.effects:
            reached = stats[f"reached@{effect:g}"].to_numpy(np.float64)
            count, n = int(reached.sum()), len(reached)
            rows.append(
                row(
                    "matched_reached",
                    count / n if n else NAN,
                    n,
                    *wilson(count, n),
                    x=effect,
                    note="" if n else "no starts",
                )
            )
            few = (
                f"no start reaches x = {effect:g}"
                if not count
                else f"hidden: {count} starts are fewer than {self.min_starts}"
                if count < self.min_starts
                else ""
            )
            for kind in kinds:
                values = stats[f"{kind}@{effect:g}"].to_numpy(np.float64)
                kept = np.isfinite(values)
                if kind not in KINDS and not kept.any():
                    continue  # measured nowhere near
                note = few or (
                    "" if kept.any() else "one attribute only: there is no other to change"
                )
                rows.append(
                    row(
                        f"matched_{kind}",
                        float(values[kept].mean()) if kept.any() else NAN,
                        int(kept.sum()),
                        *bootstrap_mean(values, draws=self.draws),
                        x=effect,
                        note=note,
                    )
                )
                samples.append(
                    pd.DataFrame(
                        {
                            "metric": f"matched_{kind}@{effect:g}",
                            "start": stats["start"][kept],
                            "value": values[kept],
                        }
                    )
                )
            samples.append(
                pd.DataFrame(
                    {
                        "metric": f"matched_reached@{effect:g}",
                        "start": stats["start"],
                        "value": reached,
                    }
                )
            )
        return MetricResult(
            pd.DataFrame(rows, columns=list(ROW_COLUMNS)),
            pd.concat(samples, ignore_index=True)[list(SAMPLE_COLUMNS)],
        )
