"""Steps to the crossing: how many steps a method makes until the judge sees the target class."""

import numpy as np

from editbench.figures.drawing import Drawing
from editbench.figures.panels import new_figure
from editbench.stats.intervals import bootstrap_mean
from editbench.walk.metric import Metric, ResultBuilder, mean_of


class StepsToCrossing(Metric):
    # The whole contract is editbench.walk.metric. Keys of the YAML are arguments of __init__.
    name = "steps_to_crossing"
    version = 1  # raise it when the numbers change
    higher_is_better = False
    produces = {"steps_to_crossing": False}  # every name of the rows: whether higher is better

    # Walks come in any order and in parts, which may be merged: what is kept between updates is in
    # states with one row a start.
    def __init__(self):
        super().__init__()
        self.add_columns("start", "steps")

    # `trajectories.table` has one row a decoded step: start, step, path, crossed, stopped, finite,
    # and the judge's logits. It may have no row, many classes, and walks that became NaN.
    def update(self, trajectories):
        stops = trajectories.table[trajectories.table["stopped"]]
        self.append(start=stops["start"].to_numpy(np.int64), steps=stops["step"].to_numpy(float))

    # Numbers with their intervals, and one value a start for paired differences. Where there is no
    # number the note says why.
    def compute(self):
        found = self.sorted_columns("steps")
        steps = found["steps"]
        note = "" if len(steps) else "no start crossed"
        out = ResultBuilder()
        out.add("steps_to_crossing", mean_of(steps), len(steps), bootstrap_mean(steps), note)
        out.add_samples("steps_to_crossing", found["start"], steps)
        return out.result()


# Optional: the figure of the report, named by `figure` in the YAML. One point a method and
# attribute, in the colour, with the marker and under the titles that they have everywhere.
def draw(records, theme):
    rows = records.rows[records.rows["metric"] == "steps_to_crossing"]
    rows = rows.merge(records.runs[["run_id", "label", "attribute"]], on="run_id")
    if rows.empty:
        return []

    def figure(theme):
        drawing = new_figure(5.5, 3.0)  # inches
        axes = drawing.add_subplot()
        for label, mine in rows.groupby("label"):
            names = mine["attribute"].map(theme.attribute)
            colour, marker = theme[label].colour, theme[label].marker
            axes.plot(names, mine["value"], marker, color=colour, label=theme.method(label))
        axes.set_ylabel("steps")
        axes.legend()
        return drawing

    title = "Steps to the crossing"
    return [Drawing("steps_to_crossing", title, "Mean over crossed starts.", figure, first=True)]
