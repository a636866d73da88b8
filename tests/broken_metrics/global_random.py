"""Draws its interval from the global generator of NumPy."""

import numpy as np
from mean_steps import MeanSteps

from editbench.walk.metric import ResultBuilder, mean_of


class GlobalRandom(MeanSteps):
    def compute(self):
        steps = self.found()["steps"]
        means = [np.random.choice(steps, len(steps)).mean() for _ in range(200) if len(steps)]
        out = ResultBuilder()
        interval = (min(means), max(means)) if means else (np.nan, np.nan)
        out.add("mean_steps", mean_of(steps), len(steps), interval, "" if means else "none")
        return out.result()
