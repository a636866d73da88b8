"""Broken: the step wants a gradient, which the engine's walk does not record."""

import torch
from mean_shift import MeanShift


class NeedsGradient(MeanShift):
    def step(self, walk):
        codes = walk.codes.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((codes * self.move(walk)).sum(), codes)
        return walk.codes + gradient
