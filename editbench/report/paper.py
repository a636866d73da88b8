"""Figures at the size of a paper's column: the same drawing, with type and marks scaled to the print."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text
from matplotlib.textpath import TextToPath

SINGLE, DOUBLE = 3.3, 6.9  # inches
NARROW, FEW = (
    5.6,
    8,
)  # figures up to this width on the screen fit one column, if no more methods are to be named
SCALE = 0.74  # of type: 9.5 points on the screen are 7 in print
TALLEST = 8.8  # inches
PER_NAME = 0.5  # inches a legend entry takes at screen size beside its name: mark, gap, space between columns
TYPE = 9.5  # points, at screen size


def to_paper(figure: Figure) -> Figure:
    """Resize a figure in place to one column or two; type, lines and marks shrink by SCALE, panels keep their shape."""
    width, height = figure.get_size_inches()
    named = sum(len(legend.get_texts()) for legend in figure.legends)
    target = SINGLE if width <= NARROW and named <= FEW else DOUBLE
    room = target / SCALE  # the width before type is scaled
    squeeze = min(
        1.0, max(0.62, room / width)
    )  # panels that get narrower get lower too, within reason
    legend_before = sum(legend_height(legend) for legend in figure.legends)
    for legend in list(figure.legends):
        _refit(figure, legend, room)
    legend_after = sum(legend_height(legend) for legend in figure.legends)
    tall = min(TALLEST, SCALE * (squeeze * (height - legend_before) + legend_after))
    figure.set_size_inches(target, tall)
    for text in figure.findobj(Text):
        text.set_fontsize(float(text.get_fontsize()) * SCALE)
    for line in figure.findobj(Line2D):
        line.set_linewidth(line.get_linewidth() * SCALE)
        line.set_markersize(line.get_markersize() * SCALE)
    for lines in figure.findobj(LineCollection):
        assert isinstance(lines, LineCollection)
        lines.set_linewidth((np.atleast_1d(lines.get_linewidth()) * SCALE).tolist())
    for arrow in figure.findobj(FancyArrowPatch):
        arrow.set_linewidth(arrow.get_linewidth() * SCALE)
    return figure


def columns_that_fit(names: list[str], width: float) -> int:
    """Columns of a legend that a width in inches takes at screen type, in the font of the figures."""
    font, measure = FontProperties(size=TYPE), TextToPath()
    points = [measure.get_text_width_height_descent(name, font, False)[0] for name in names]
    return max(1, min(len(names), int((width - 0.1) / (PER_NAME + max(points, default=0.0) / 72))))


def _refit(figure: Figure, legend: Legend, room: float) -> None:
    names, handles = [text.get_text() for text in legend.get_texts()], legend.legend_handles
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


def legend_height(legend: Legend) -> float:
    """Inches, from the type."""
    texts = legend.get_texts()
    lines = -(-len(texts) // max(1, legend._ncols))  # type: ignore[attr-defined]
    return lines * 1.5 * (texts[0].get_fontsize() if texts else 0) / 72
