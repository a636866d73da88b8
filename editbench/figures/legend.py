"""Legends of methods, above the panels."""

from __future__ import annotations

from typing import cast

from matplotlib.figure import Figure, FigureBase
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath

from editbench.figures.panels import TYPE
from editbench.figures.theme import Theme

PER_NAME = 0.5  # inches of a legend entry in addition to its name: mark, gaps


def put_legend(figure: FigureBase, methods: list[str], theme: Theme, line: bool = True) -> None:
    """Add a legend above the panels. The figure becomes taller, so that panels keep their height.

    Args:
        figure: a figure, or a part of one.
        methods: labels, in the order of the legend.
        theme: their colours, markers and names.
        line: whether there is a line through each marker, as in a curve.
    """
    handles: list[Line2D] = []
    for method in methods:
        handles.append(
            Line2D(
                [],
                [],
                color=theme[method].colour,
                linestyle=theme[method].dash if line else "none",
                linewidth=2,
                marker=theme[method].marker,
                markersize=6,
                markeredgewidth=0,
            )
        )
    # A part has no height of its own in inches.
    whole = cast(Figure, figure.figure)
    width = float(whole.get_figwidth())
    names = [theme.method(method) for method in methods]
    figure.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=columns_that_fit(names, width),
        handlelength=1.8 if line else 1,
        columnspacing=1.4,
        handletextpad=0.5,
    )
    whole.set_figheight(whole.get_figheight() + legend_height(names, width))


def columns_that_fit(names: list[str], width: float) -> int:
    """Number of columns of a legend that fit a figure, at least 1 and at most one per name.

    Args:
        names: texts of the legend.
        width: of the figure, in inches at screen size.
    """
    font = FontProperties(size=TYPE)
    measure = TextToPath()
    widest = 0.0
    for name in names:
        points = measure.get_text_width_height_descent(name, font, False)[0]
        widest = max(widest, points)
    inches = PER_NAME + widest / 72  # an inch has 72 points
    return max(1, min(len(names), int((width - 0.1) / inches)))


def legend_height(names: list[str], width: float) -> float:
    """Height of a legend in inches at screen size; 0 without names.

    Args:
        names: texts of the legend.
        width: of the figure, in inches at screen size.
    """
    lines = -(-len(names) // columns_that_fit(names, width))
    return lines * 1.5 * TYPE / 72
