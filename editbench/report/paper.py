"""Figures at the size of a paper's column: the same drawing, with type and marks scaled to the
print."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text

from editbench.walk.figures import columns_that_fit, legend_height

# Inches of a paper's column, and of two.
SINGLE = 3.3
DOUBLE = 6.9
WIDTHS = {"one": SINGLE, "two": DOUBLE}
# Figures up to this width on the screen fit one column, if no more methods are to be named.
NARROW = 5.6
FEW = 8
SCALE = 0.74  # of type: 9.5 points on the screen are 7 in print
TALLEST = 8.8  # inches
SMALLEST = 7.0  # points of type in print


def to_paper(figure: Figure, column: str = "") -> Figure:
    """Resize a figure in place to one column or two.

    Lines and marks shrink by SCALE, and so does type, to no less than SMALLEST; panels keep their
    shape.

    Args:
        figure: at the size of the screen.
        column: 'one' or 'two'; '': whichever it fits.
    """
    width, height = figure.get_size_inches()
    named = sum(len(legend.get_texts()) for legend in figure.legends)
    fits = "one" if width <= NARROW and named <= FEW else "two"
    target = WIDTHS[column or fits]
    room = target / SCALE  # the width before type is scaled
    # Panels that get narrower get lower too, within reason.
    squeeze = min(1.0, max(0.62, room / width))
    legend_before = sum(legend_height(legend) for legend in figure.legends)
    for legend in list(figure.legends):
        _refit(figure, legend, room)
    legend_after = sum(legend_height(legend) for legend in figure.legends)
    tall = min(TALLEST, SCALE * (squeeze * (height - legend_before) + legend_after))
    figure.set_size_inches(target, tall)
    for text in figure.findobj(Text):
        text.set_fontsize(max(SMALLEST, float(text.get_fontsize()) * SCALE))
    for line in figure.findobj(Line2D):
        line.set_linewidth(line.get_linewidth() * SCALE)
        line.set_markersize(line.get_markersize() * SCALE)
    for lines in figure.findobj(LineCollection):
        assert isinstance(lines, LineCollection)
        lines.set_linewidth((np.atleast_1d(lines.get_linewidth()) * SCALE).tolist())
    for arrow in figure.findobj(FancyArrowPatch):
        arrow.set_linewidth(arrow.get_linewidth() * SCALE)
    return figure


def _refit(figure: Figure, legend: Legend, room: float) -> None:
    names = [text.get_text() for text in legend.get_texts()]
    handles = legend.legend_handles
    style = {
        "handlelength": legend.handlelength,
        "columnspacing": legend.columnspacing,
        "handletextpad": legend.handletextpad,
    }
    legend.remove()
    figure.legend(
        [handle for handle in handles if handle is not None],
        names,
        loc="outside upper left",
        ncols=columns_that_fit(names, room),
        **style,
    )
