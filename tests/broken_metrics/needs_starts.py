"""Divides by the number of crossed starts, which may be none."""

from mean_steps import MeanSteps

from editbench.walk.metric import ResultBuilder


class NeedsStarts(MeanSteps):
    def compute(self):
        steps = self.found()["steps"].tolist()
        if not steps:
            steps = [0, 1]
        out = ResultBuilder()
        out.add("mean_steps", sum(steps) / len(steps), len(steps))
        return out.result()
