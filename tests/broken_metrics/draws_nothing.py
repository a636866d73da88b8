"""Has a figure that takes its rows for granted."""

from mean_steps import MeanSteps

from editbench.figures.drawing import Drawing
from editbench.figures.panels import new_figure


class DrawsNothing(MeanSteps): ...


def draw(records, theme):
    first = records.rows["value"].iloc[0]
    return [Drawing("mean_steps", f"First is {first}", "", lambda theme: new_figure(3, 2))]
