"""Broken: the fit draws from the global random state."""

import numpy as np
from mean_shift import MeanShift


class RandomFit(MeanShift):
    def fit(self, data):
        report = super().fit(data)
        self.length *= 1 + np.random.rand()
        return report
