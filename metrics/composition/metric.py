"""Composition of two edits: do both hold, in either order, and does the order matter?

Khrulkov et al. 2021 (Fig. 7) show images; the numbers are this project's. Both edits hold if the
judge sees both target classes when the second walk has stopped, since the second edit may have
undone the first. A walk that never crosses counts as a failure. Success counts the target classes
only, so an editor that moves every start to one image of them succeeds; accuracy counts the other
attributes too. The commutator compares both orders with the same lengths of each edit: it is the
distance between their two end points, divided by the mean straight distance from the start to the
end points. It is 0 if the edits commute, which straight lines always do, whatever they change.
"""

from __future__ import annotations

import numpy as np

from editbench.base.validation import check_at_least
from editbench.stats.intervals import bootstrap_mean, wilson
from editbench.walk.metric import MetricResult, ObservationMetric, ResultBuilder, mean_of

SHARES = ("composition_success", "composition_accuracy")
ORDERS = ("", "_reversed")  # suffix of the arrays: first attribute first, or last


class CompositionSuccess(ObservationMetric):
    """Success of two edits one after the other, and how far the order matters.

    Rows:
        composition_success: share of all starts for which both targets hold at the end, Wilson.
        composition_accuracy: share for which also every other attribute kept its class, Wilson.
        ..._reversed: the same in the other order.
        commutator: see the module's docstring; commutator_pixels: root mean square difference of
            the two images in [-1, 1]. Means over the starts for which both targets hold in the
            first order and each edit made a step, bootstrap.
    Samples: all of them.

    Args:
        draws: bootstrap draws.
    """

    name = "composition"
    version = 1
    citation = (
        "Khrulkov, Mirvakhabova, Oseledets & Babenko: Latent Transformations via NeuralODEs, "
        "ICCV 2021, Fig. 7"
    )
    observation = "composition"
    higher_is_better = True
    produces = {
        "composition_success": True,
        "composition_success_reversed": True,
        "composition_accuracy": True,
        "composition_accuracy_reversed": True,
        "commutator": False,
        "commutator_pixels": False,
    }
    joined = {
        "start": 0,
        "both": 0,
        "both_reversed": 0,
        "others": 0,
        "others_reversed": 0,
        "distance": 0,
        "travelled": 0,
        "pixels": 0,
    }

    def __init__(self, draws: int = 2000) -> None:
        check_at_least("draws", draws, 1)
        super().__init__()
        self.draws = int(draws)

    def measure(self, arrays: dict[str, np.ndarray], meta: dict) -> MetricResult:
        order = np.argsort(arrays["start"], kind="stable")
        found = {name: values[order] for name, values in arrays.items()}
        values: dict[str, np.ndarray] = {}
        for suffix in ORDERS:
            both = found[f"both{suffix}"].astype(bool)
            kept = both & (found[f"others{suffix}"] == 0)
            values[f"composition_success{suffix}"] = both.astype(np.float64)
            values[f"composition_accuracy{suffix}"] = kept.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            gap = found["distance"] / found["travelled"]
        # Two walks that end in the same point commute, even if neither moved.
        values["commutator"] = np.where(found["distance"] == 0, 0.0, gap)
        values["commutator_pixels"] = found["pixels"]

        out = ResultBuilder()
        for name, column in values.items():
            finite = column[np.isfinite(column)]
            n = len(finite)
            if name.startswith(SHARES):
                interval = wilson(int(column.sum()), n)
            else:
                interval = bootstrap_mean(column, draws=self.draws)
            note = "" if n else "no start where both edits took a step and hold"
            out.add(name, mean_of(finite), n, interval, note)
            out.add_samples(name, found["start"], column)
        return out.result()
