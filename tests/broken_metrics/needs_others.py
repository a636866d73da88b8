"""Takes the largest change among the other attributes, of which there may be none."""

from mean_steps import MeanSteps


class NeedsOthers(MeanSteps):
    def update(self, trajectories):
        trajectories.dependency().max(1)
        super().update(trajectories)
