"""Broken: a step keeps its velocity for the next one, by the start of each sample."""

import torch
from mean_shift import MeanShift


class Remembers(MeanShift):
    def __init__(self, delta=0.6, layers=None):
        super().__init__(delta, layers)
        self.velocity = {}

    def step(self, walk):
        now = self.move(walk)
        before = [
            self.velocity.get(int(start), row) for start, row in zip(walk.start, now, strict=True)
        ]
        moved = 0.5 * torch.stack(before).to(now) + 0.6 * now
        self.velocity.update(
            {int(start): row for start, row in zip(walk.start, moved, strict=True)}
        )
        return walk.codes + moved
