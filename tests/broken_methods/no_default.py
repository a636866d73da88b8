"""Broken: an argument of the constructor has no default."""

from mean_shift import MeanShift


class NoDefault(MeanShift):
    def __init__(self, delta):
        super().__init__(delta)
