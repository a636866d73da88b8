"""Broken: it cannot walk."""

from editbench.walk.editor import Editor, FitReport


class NoStep(Editor):
    def fit(self, data):
        return FitReport()
