"""Broken: the state has a dict and a number, which a file of tensors cannot hold."""

from mean_shift import MeanShift


class KeepsAnObject(MeanShift):
    def state(self):
        return {"means": self.means, "length": self.length}

    def load_state(self, state):
        self.means = state["means"]
        self.length = state["length"]
