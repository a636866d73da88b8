"""A sound method that fits nothing: every step follows the teacher's gradient at the samples."""

import torch
from torch.nn import functional as F

from editbench.base.spaces import Codes, Space
from editbench.walk.editor import Editor, FitReport


class TeacherAscent(Editor):
    def __init__(self, delta: float = 0.6, layers=None):
        super().__init__(layers)
        self.delta = delta
        self.length = 0.0

    def fit(self, data):
        self.length = data.step_size(self.delta, Space.W)
        return FitReport()

    def step(self, walk):
        generator = self.need_generator()
        teacher = self.need_teacher()
        column, sign = teacher.attributes.column(walk.attribute, walk.target)
        with torch.enable_grad():
            codes = walk.codes.detach().requires_grad_()
            log_odds = teacher.attributes.log_odds(teacher(generator.decode(Codes(Space.W, codes))))
            wanted = sign * log_odds[torch.arange(len(walk)), column]
            (gradient,) = torch.autograd.grad(wanted.sum(), codes)
        generator.decoded += len(codes)  # the backward pass
        return walk.codes + self.length * F.normalize(gradient, dim=-1)

    def state(self):
        return {"length": torch.tensor(self.length, dtype=torch.float64)}

    def load_state(self, state):
        self.length = float(state["length"])
