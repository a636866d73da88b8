"""Broken: the step is scaled by a mean over the samples of the batch."""

from mean_shift import MeanShift


class OverTheBatch(MeanShift):
    def step(self, walk):
        return walk.codes + self.move(walk) * walk.codes.norm(dim=1).mean()
