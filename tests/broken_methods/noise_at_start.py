"""Broken: what is decoded at step 0 is not the start."""

from dataclasses import replace

from mean_shift import MeanShift


class NoiseAtStart(MeanShift):
    def codes(self, walk):
        codes = super().codes(walk)
        return replace(codes, values=codes.values + 1e-3)
