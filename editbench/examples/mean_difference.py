"""Mean difference: walk from the mean of the source class towards the mean of the target class."""

import torch
from torch.nn import functional as F

from editbench.base.errors import Unsupported
from editbench.base.spaces import Space
from editbench.walk.editor import Editor, FitReport


class MeanDifference(Editor):
    # The whole contract, with types and shapes, is editbench.walk.editor.
    space = Space.W  # where it walks: Z, W, W_PLUS, S or THETA
    unit = "W units"  # of the length of a step

    # Keys of the YAML are arguments here. Of an argument with a type other values are refused.
    def __init__(self, delta: float = 0.6, layers=None):
        super().__init__(layers)  # rows of W+ that the edit reaches; None for all
        self.delta = delta
        self.means: dict[str, torch.Tensor] = {}
        self.length = 0.0

    # Once, for all attributes. `data` has the fit and tune splits, with the teacher's logits, the
    # generator and the teacher; never the test split or the judge. Logits have one column for an
    # attribute of two classes, and K for one of K: data.attributes.column(name, c) gives the column
    # and the sign of class c in data.attributes.log_odds(logits). Random numbers come from
    # editbench.base.seeding.rng(data.seed, "name"), a generator of NumPy; one of torch is
    # torch.Generator().manual_seed(int(rng(data.seed, "name").integers(2**62))). `data.score` gives
    # the teacher's logits of codes, without gradients. For a gradient take
    # data.teacher(data.generator.decode(Codes(space, codes))) and count its backward pass:
    # data.generator.decoded += len(codes).
    def fit(self, data):
        w = data.fit.codes(Space.W)
        labels = data.attributes.labels(data.fit.logits)
        for column, attribute in enumerate(data.attributes):
            groups = [w[labels[:, column] == c] for c in range(len(attribute.classes))]
            self.means[attribute.name] = torch.stack([group.mean(0) for group in groups])
        self.length = data.step_size(self.delta, Space.W)
        return FitReport(labels=len(w))  # samples whose logits were read: a cost in the tables

    # What cannot be served is Unsupported with a reason, which is recorded as a result.
    def check(self, generator, attributes, attribute):
        super().check(generator, attributes, attribute)
        if self.means and self.means[attribute].isnan().any():
            raise Unsupported(f"the fit split lacks a class of {attribute}")

    # New codes, like walk.codes. A row depends on its own sample alone: samples leave the batch as
    # they cross. The same walk gives the same codes: keep nothing from one step for the next;
    # walk.codes - walk.origin is the way so far. A step that asks the teacher or needs its gradient
    # takes self.need_teacher(). The engine decodes, judges and stops.
    def step(self, walk):
        means = self.means[walk.attribute]
        towards = means[walk.target] - means[walk.source]
        return walk.codes + self.length * F.normalize(towards, dim=-1)

    # Named tensors with all that the fit found: every job walks with an editor that loaded them.
    def state(self):
        return {**self.means, "length": torch.tensor(self.length, dtype=torch.float64)}

    def load_state(self, state):
        self.means = dict(state)
        self.length = float(self.means.pop("length"))
