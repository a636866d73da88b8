"""The sound metric that the broken ones derive from: mean number of steps to the first crossing."""

import numpy as np

from editbench.stats.intervals import bootstrap_mean
from editbench.walk.metric import Metric, ResultBuilder, mean_of


class MeanSteps(Metric):
    name = "mean_steps"
    higher_is_better = False
    produces = {"mean_steps": False}

    def __init__(self):
        super().__init__()
        self.add_columns("start", "steps")

    def update(self, trajectories):
        stops = trajectories.table[trajectories.table["stopped"]]
        self.append(start=stops["start"].to_numpy(np.int64), steps=stops["step"].to_numpy(float))

    def found(self):
        return self.sorted_columns("steps")

    def compute(self):
        found = self.found()
        steps = found["steps"]
        out = ResultBuilder()
        note = "" if len(steps) else "no start crossed"
        out.add("mean_steps", mean_of(steps), len(steps), bootstrap_mean(steps), note)
        out.add_samples("mean_steps", found["start"], steps)
        return out.result()
