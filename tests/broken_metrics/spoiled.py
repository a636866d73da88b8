"""Reads logits of walks that have diverged."""

import numpy as np
from mean_steps import MeanSteps


class Spoiled(MeanSteps):
    def update(self, trajectories):
        table = trajectories.table
        last = table.groupby("start", sort=False).tail(1)
        logits = last[f"logit:{trajectories.attributes.columns()[0]}"]
        self.append(start=last["start"].to_numpy(np.int64), steps=logits.to_numpy(float))
