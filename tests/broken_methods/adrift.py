"""Broken: its directions do not start at the sample."""

import torch
from mean_shift import MeanShift

from editbench.base.spaces import Codes, Space
from editbench.walk.editor import DirectionSet


class Adrift(MeanShift):
    def fixed_directions(self, data):
        axes = torch.eye(data.generator.w_dim)[:2]
        return DirectionSet(("0", "1"), (1.0,), "W units", Space.W, {"axes": axes})

    def apply_direction(self, found, place, strength, codes):
        return Codes(Space.W, codes + (strength + 0.1) * found.tensors["axes"][place].to(codes))
