"""Broken: it cannot walk."""

from editbench.editor import Editor, FitReport


class NoStep(Editor):
    def fit(self, data):
        return FitReport()
