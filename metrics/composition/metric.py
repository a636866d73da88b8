"""Composition of two edits (Khrulkov et al. 2021, Fig. 7): do both hold, in either order, and does the order matter?

The paper shows pictures; the numbers are this project's. Both edits hold where at the end, when the second walk has
stopped, the judge sees both target classes: the first may have been undone by the second. A walk that never arrived
counts as a failure. The commutator is the distance between the two ends when either order walks the same lengths, over
the mean length of the straight way from the start to the ends: 0 where the edits commute, as straight lines do,
whatever they change.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from editbench.stats.intervals import bootstrap_mean, wilson
from editbench.walk.metric import ROW_COLUMNS, SAMPLE_COLUMNS, MetricResult, ObservationMetric, row
from editbench.walk.observation import Observed

NAN = float("nan")
SHARES = ("composition_success", "composition_accuracy")
MEANS = ("commutator", "commutator_pixels")


class CompositionSuccess(ObservationMetric):
    """Rows: `composition_success` (share of all starts where both targets hold at the end), `composition_accuracy` (and
    every other attribute kept its class), the same with `_reversed` (Wilson); `commutator`, `commutator_pixels` (root
    mean square difference of the two pictures in [-1, 1]): means over the starts where both hold in the first order and
    each edit took a step, bootstrap. Samples: all of them.

    Args:
        draws: bootstrap draws.
    """

    name = "composition"
    version = 1
    citation = "Khrulkov, Mirvakhabova, Oseledets & Babenko: Latent Transformations via NeuralODEs, ICCV 2021, Fig. 7"
    observation = "composition"
    produces = {
        "composition_success": True,
        "composition_success_reversed": True,
        "composition_accuracy": True,
        "composition_accuracy_reversed": True,
        "commutator": False,
        "commutator_pixels": False,
    }

    def __init__(self, draws: int = 2000) -> None:
        self.draws = int(draws)

    def compute(self, stats: Observed) -> MetricResult:
        order = np.argsort(stats.arrays["start"], kind="stable")
        found = {
            name: values[order]
            for name, values in stats.arrays.items()
            if len(values) == len(order)
        }
        values: dict[str, np.ndarray] = {}
        for suffix in ("", "_reversed"):
            both = found[f"both{suffix}"].astype(bool)
            values[f"composition_success{suffix}"] = both.astype(np.float64)
            values[f"composition_accuracy{suffix}"] = (
                both & (found[f"others{suffix}"] == 0)
            ).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            gap = found["distance"] / found["travelled"]
        values["commutator"] = np.where(found["distance"] == 0, 0.0, gap)
        values["commutator_pixels"] = found["pixels"]
        rows, samples = [], []
        for name, column in values.items():
            kept = np.isfinite(column)
            n = int(kept.sum())
            interval = (
                wilson(int(column.sum()), n)
                if name.startswith(SHARES)
                else bootstrap_mean(column, draws=self.draws)
            )
            rows.append(
                row(
                    name,
                    float(column[kept].mean()) if n else NAN,
                    n,
                    *interval,
                    note="" if n else "no start where both edits took a step and hold",
                )
            )
            samples.append(
                pd.DataFrame({"metric": name, "start": found["start"][kept], "value": column[kept]})
            )
        return MetricResult(
            pd.DataFrame(rows, columns=list(ROW_COLUMNS)),
            pd.concat(samples, ignore_index=True)[list(SAMPLE_COLUMNS)],
        )
