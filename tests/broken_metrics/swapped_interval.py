"""Gives the ends of its interval the wrong way round."""

from mean_steps import MeanSteps


class SwappedInterval(MeanSteps):
    def compute(self):
        found = super().compute()
        found.rows[["low", "high"]] = found.rows[["high", "low"]].to_numpy()
        return found
