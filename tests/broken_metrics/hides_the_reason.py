"""Gives a number where its observation could not look."""

from editbench.walk.metric import ObservationMetric, ResultBuilder


class HidesTheReason(ObservationMetric):
    name = "hides_the_reason"
    observation = "locality"
    higher_is_better = True
    produces = {"hides_the_reason": True}

    def compute(self):
        out = ResultBuilder()
        out.add("hides_the_reason", 0.0, 0)
        return out.result()
