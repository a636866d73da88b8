"""Dependency on each other attribute separately: which of them an edit changes.

Mean AD does not show whether an editor changes all attributes a little or one correlated attribute
a lot. Here every other attribute i has its own number, where the walk first passes the effect x*
(editbench.stats.first_crossing.at_effect):

- `dependency_on`, variant i: mean |l_i - l_i at step 0| / sigma_i, as in the metric
  attribute_dependency.
- `entanglement_with`, variant i, only if target and i are both binary: the mean signed change,
  positive if both move towards their positive classes or both away from them. It has the sign of
  the correlation that the editor has picked up, and is 0 if the editor moves i equally often in
  both directions.
"""

from __future__ import annotations

import numpy as np

from editbench.base.validation import check_at_least, check_positive
from editbench.stats.first_crossing import at_effect
from editbench.stats.intervals import bootstrap_mean
from editbench.walk.metric import Metric, MetricResult, ResultBuilder, mean_of, start_rows
from editbench.walk.trajectory import Trajectories


class DependencyMatrix(Metric):
    """Change of each other attribute at matched effect.

    Rows, variant: the other attribute, x: x*:
        dependency_on, entanglement_with: means over the starts that reach x*, bootstrap.
    Samples: the same.

    States:
        start: (n,) start ids.
        dependency: (n, A - 1) magnitudes in sigmas; NaN if the walk never reaches x*.
        entanglement: (n, A - 1) signed changes in sigmas.
        others, signed: names of the other attributes, and of those with a signed number.

    Args:
        at: matched effect x*, in sigmas.
        draws: bootstrap draws.
    """

    name = "dependency_matrix"
    version = 1
    citation = (
        "Wu, Lischinski & Shechtman: StyleSpace Analysis, CVPR 2021 "
        "(attribute dependency, by attribute)"
    )
    higher_is_better = False
    produces = {"dependency_on": False, "entanglement_with": None}

    def __init__(self, at: float = 1.0, draws: int = 2000) -> None:
        check_positive("at", at)
        check_at_least("draws", draws, 1)
        super().__init__()
        self.x_star = float(at)
        self.draws = int(draws)
        self.add_columns("start", "dependency", "entanglement")
        self.add_facts("others", "signed")

    def update(self, trajectories: Trajectories) -> None:
        table = trajectories.table
        x = trajectories.effect
        begins, owner = start_rows(trajectories)
        change = trajectories.dependency(signed=True)
        sound = table["finite"].to_numpy(bool) & np.isfinite(x) & np.isfinite(change).all(1)
        found = at_effect(x, change, owner, sound, self.x_star, len(begins))
        # 1 if the walk goes towards the positive class, -1 if it goes away from it.
        towards = 2.0 * table["target"].to_numpy(np.int64)[begins] - 1

        attributes = trajectories.attributes
        others = [name for name in attributes.names if name != trajectories.attribute]
        signed = []
        if attributes[trajectories.attribute].binary:
            signed = [name for name in others if attributes[name].binary]
        self.append(
            start=table["start"].to_numpy(np.int64)[begins],
            dependency=np.abs(found),
            entanglement=towards[:, None] * found,
        )
        self.keep_fact("others", others)
        self.keep_fact("signed", signed)

    def compute(self) -> MetricResult:
        found = self.sorted_columns("dependency", "entanglement")
        signed = self.fact("signed")
        out = ResultBuilder()
        if len(found["start"]) and not self.fact("others"):
            note = "one attribute only: there is no other to depend on"
            out.add("dependency_on", np.nan, 0, note=note, x=self.x_star)
        for place, name in enumerate(self.fact("others")):
            self._add(out, "dependency_on", name, found["start"], found["dependency"][:, place])
            if name in signed:
                values = found["entanglement"][:, place]
                self._add(out, "entanglement_with", name, found["start"], values)
        return out.result()

    def _add(
        self, out: ResultBuilder, metric: str, other: str, start: np.ndarray, values: np.ndarray
    ) -> None:
        """Add the mean over the starts that reach the effect, and their values."""
        reached = np.isfinite(values)
        n = int(reached.sum())
        note = "" if n else f"no start reaches x = {self.x_star:g}"
        interval = bootstrap_mean(values, draws=self.draws)
        mean = mean_of(values[reached])
        out.add(metric, mean, n, interval, note, variant=other, x=self.x_star)
        out.add_samples(metric, start, values, variant=other, x=self.x_star)
