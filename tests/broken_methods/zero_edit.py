"""Broken: attributes of many classes are left as they are, without a word."""

from mean_shift import MeanShift


class ZeroEdit(MeanShift):
    def step(self, walk):
        return walk.codes.clone() if len(self.means[walk.attribute]) > 2 else super().step(walk)
