"""Broken: the fit finds the bank with the garbage collector and reads its test split."""

import gc

from mean_shift import MeanShift

from editbench.bank.bank import Bank


class PeeksAtTheTestSplit(MeanShift):
    def fit(self, data):
        report = super().fit(data)
        bank = next(value for value in gc.get_objects() if type(value) is Bank)
        self.length *= 1 + 1e-3 * bank.split("test").w.mean().abs().item()
        return report
