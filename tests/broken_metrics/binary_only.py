"""Takes every attribute for one of two classes."""

from mean_steps import MeanSteps


class BinaryOnly(MeanSteps):
    def update(self, trajectories):
        # The column of an attribute of many classes has another name.
        trajectories.table[f"logit:{trajectories.attribute}"]
        super().update(trajectories)
