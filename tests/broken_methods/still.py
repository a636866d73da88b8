"""Broken: class 'yes' of attribute 'a' cannot be walked to, and the codes come back as they were."""

from mean_shift import MeanShift


class Still(MeanShift):
    def step(self, walk):
        return walk.codes.clone() if walk.attribute == "a" else super().step(walk)
