"""Broken: the step draws from the global random state."""

import torch
from mean_shift import MeanShift


class GlobalRandom(MeanShift):
    def step(self, walk):
        return super().step(walk) + 0.1 * torch.randn(walk.codes.shape[1]).to(walk.codes)
