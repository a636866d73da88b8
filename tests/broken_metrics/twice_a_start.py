"""Has two values of one start."""

import pandas as pd
from mean_steps import MeanSteps

from editbench.walk.metric import MetricResult


class TwiceAStart(MeanSteps):
    def compute(self):
        rows, samples = super().compute()
        return MetricResult(rows, pd.concat([samples, samples], ignore_index=True))
