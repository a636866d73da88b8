"""Broken: the fit finds the judge on the call stack and learns from it."""

import inspect
from dataclasses import replace

from mean_shift import MeanShift

from editbench.base.spaces import Codes, Space
from editbench.networks.scorer import Scorer
from editbench.walk.editor import FitReport


class PeeksAtTheJudge(MeanShift):
    def fit(self, data):
        values = [value for frame in inspect.stack() for value in frame.frame.f_locals.values()]
        judge = next(
            value for value in values if isinstance(value, Scorer) and value is not data.teacher
        )
        logits = judge(data.generator.decode(Codes(Space.W, data.fit.w)))
        super().fit(replace(data, fit=replace(data.fit, logits=logits)))
        return FitReport(labels=len(data.fit))
