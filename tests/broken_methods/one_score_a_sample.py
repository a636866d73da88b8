"""Broken: a single score a sample, where the contract asks for one a class."""

from mean_shift import MeanShift

from editbench.base.spaces import Space


class OneScoreASample(MeanShift):
    def class_scores(self, data, attribute):
        means = self.means[attribute]
        return data.tune.codes(Space.W) @ (means[1] - means[0])
