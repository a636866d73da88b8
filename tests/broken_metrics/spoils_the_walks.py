"""Alters the table that it is given."""

from mean_steps import MeanSteps


class SpoilsTheWalks(MeanSteps):
    def update(self, trajectories):
        trajectories.table["step"] += 1
        super().update(trajectories)
