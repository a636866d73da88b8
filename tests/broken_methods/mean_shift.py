"""The sound method that the broken ones derive from: from the mean of the source class to that of the target class."""

import torch
from torch.nn import functional as F

from editbench.base.errors import Unsupported
from editbench.base.spaces import Space
from editbench.walk.editor import Editor, FitReport


class MeanShift(Editor):
    def __init__(self, delta=0.6, layers=None):
        super().__init__(layers)
        self.delta, self.length, self.means = delta, delta, {}

    def fit(self, data):
        w, labels = data.fit.codes(Space.W), data.attributes.labels(data.fit.logits)
        self.means = {
            a.name: torch.stack([w[labels[:, k] == c].mean(0) for c in range(len(a.classes))])
            for k, a in enumerate(data.attributes)
        }
        self.length = data.step_size(self.delta, Space.W)
        return FitReport(labels=len(w))

    def check(self, generator, attributes, attribute):
        super().check(generator, attributes, attribute)
        if attribute in self.means and self.means[attribute].isnan().any():
            raise Unsupported(f"the fit split holds no example of a class of {attribute}")

    def move(self, walk):
        means = self.means[walk.attribute]
        towards = means[walk.target] - means[walk.source]
        return self.length * F.normalize(towards, dim=-1).to(walk.codes)

    def step(self, walk):
        return walk.codes + self.move(walk)

    def state(self):
        return {**self.means, "length": torch.tensor(self.length, dtype=torch.float64)}

    def load_state(self, state):
        self.means = dict(state)
        self.length = float(self.means.pop("length"))
