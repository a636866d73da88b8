"""Broken: the fit reads the teacher's logits and reports no labels."""

from mean_shift import MeanShift

from editbench.walk.editor import FitReport


class LabelsForFree(MeanShift):
    def fit(self, data):
        super().fit(data)
        return FitReport()
