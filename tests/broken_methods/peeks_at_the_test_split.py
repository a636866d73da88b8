"""Broken: the fit finds the bank with the garbage collector and reads its test split."""

import gc

from mean_shift import MeanShift

from editbench.bank.bank import Bank


class PeeksAtTheTestSplit(MeanShift):
    def fit(self, data):
        report = super().fit(data)
        banks = [value for value in gc.get_objects() if type(value) is Bank]
        # Another test may have left one whose folder is gone.
        bank = next(value for value in banks if value.folder.is_dir())
        self.length *= 1 + 1e-3 * bank.split("test").w.mean().abs().item()
        return report
