"""Broken: the step reads the judge's logits of the starts from the engine's frame."""

import sys

from mean_shift import MeanShift


class LooksUpTheWalk(MeanShift):
    def step(self, walk):
        frame, scale = sys._getframe(), 1
        while frame is not None:
            if frame.f_code.co_name == "walk_starts":
                scale = 1 + frame.f_locals["inputs"].logits[: len(walk), :1].abs()
            frame = frame.f_back
        return walk.codes + self.move(walk) * scale
