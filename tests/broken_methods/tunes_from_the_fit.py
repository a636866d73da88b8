"""Broken: the tuning needs what the fit has left on the instance and the state does not hold."""

from mean_shift import MeanShift

from editbench.base.spaces import Space
from editbench.walk.editor import FitReport


class TunesFromTheFit(MeanShift):
    def fit(self, data):
        report = super().fit(data)
        self.spread = data.spread(Space.W)
        return report

    def tune(self, data, attribute):
        self.length = 0.05 * self.spread
        return FitReport()
