"""Broken: the codes of the walk are moved in place."""

from mean_shift import MeanShift


class InPlace(MeanShift):
    def step(self, walk):
        walk.codes += self.move(walk)
        return walk.codes
