"""Scaling figures, with their type and marks, to the width of a paper's column."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, FigureBase
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text

from editbench.figures.legend import columns_that_fit, legend_height

# Width of one column of a paper, and of two, in inches.
SINGLE = 3.3
DOUBLE = 6.9
WIDTHS = {"one": SINGLE, "two": DOUBLE}
# A figure up to this width on the screen, with at most FEW names in legends, fits one column.
NARROW = 5.6
FEW = 8
SCALE = 0.74  # of type: 9.5 points on the screen become 7 in print
TALLEST = 8.8  # maximum height in inches
SMALLEST = 7.0  # minimum size of type in print, in points


def to_paper(figure: Figure, column: str = "") -> Figure:
    """Resize a figure in place to one column or two.

    Lines, marks and type are scaled by SCALE, but type not below SMALLEST. Panels roughly keep
    their aspect ratio.

    Args:
        figure: at the size for the screen.
        column: 'one' or 'two'; '' chooses one that fits.
    """
    width, height = figure.get_size_inches()
    # A figure of many curves has one part per group of methods, each with its own legend.
    parts: list[FigureBase] = [figure, *figure.subfigs]
    legends = [(part, legend) for part in parts for legend in part.legends]
    names = [[text.get_text() for text in legend.get_texts()] for _, legend in legends]
    named = sum(map(len, names))
    fits = "one" if width <= NARROW and named <= FEW else "two"
    target = WIDTHS[column or fits]
    room = target / SCALE  # the width before type is scaled
    # Narrower panels also become less tall, within limits.
    squeeze = min(1.0, max(0.62, room / width))
    legend_before = sum(legend_height(one, width) for one in names)
    legend_after = sum(legend_height(one, room) for one in names)
    for part, legend in legends:
        _refit(part, legend, room)
    tall = min(TALLEST, SCALE * (squeeze * (height - legend_before) + legend_after))
    figure.set_size_inches(target, tall)
    if figure.subfigs:
        # The panels of all parts get the same height, independent of the size of their legends.
        panels = (tall / SCALE - legend_after) / len(figure.subfigs)
        ratios = [panels + legend_height(one, room) for one in names]
        # matplotlib has no public access to the grid of the parts.
        figure.subfigs[0]._subplotspec.get_gridspec().set_height_ratios(ratios)  # type: ignore[attr-defined]
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


def _refit(figure: FigureBase, legend: Legend, room: float) -> None:
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
