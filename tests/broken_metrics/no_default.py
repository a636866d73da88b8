"""Needs an argument."""

from mean_steps import MeanSteps


class NoDefault(MeanSteps):
    def __init__(self, least):
        super().__init__()
        self.least = least
