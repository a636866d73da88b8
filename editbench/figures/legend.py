"""Legends of methods, above the panels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from matplotlib.figure import Figure, FigureBase
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath

from editbench.figures.panels import TYPE
from editbench.figures.theme import Theme

PER_NAME = 0.5  # inches of a legend entry beside its name: mark, gap, space between columns


def put_legend(figure: FigureBase, methods: list[str], theme: Theme, line: bool = True) -> None:
    """A legend above the panels, which keep their height.

    Args:
        figure: the whole, or a part of it.
        methods: labels, in the order of the legend.
        theme: their colours, markers and names.
        line: whether a line goes through the marker, as in a curve.
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
    # Of a part it is the whole that gets higher.
    whole = cast(Figure, figure.figure)
    columns = columns_of(methods, theme, float(whole.get_figwidth()))
    figure.legend(
        handles,
        [theme.method(method) for method in methods],
        loc="outside upper left",
        ncols=columns,
        handlelength=1.8 if line else 1,
        columnspacing=1.4,
        handletextpad=0.5,
    )
    whole.set_figheight(whole.get_figheight() + legend_height(len(methods), columns))


def columns_of(methods: Iterable[str], theme: Theme, width: float) -> int:
    """Columns of a legend of methods in a width in inches at screen type.

    Args:
        methods: labels.
        theme: with the names that stand in the legend.
        width: of the figure, inches.
    """
    return columns_that_fit([theme.method(method) for method in methods], width)


def columns_that_fit(names: list[str], width: float) -> int:
    """Columns of a legend that a width takes at screen type, in the font of the figures.

    Args:
        names: as they are written.
        width: of the figure, inches.

    Returns:
        At least 1, at most one for each name.
    """
    font = FontProperties(size=TYPE)
    measure = TextToPath()
    widest = 0.0
    for name in names:
        points = measure.get_text_width_height_descent(name, font, False)[0]
        widest = max(widest, points)
    inches = PER_NAME + widest / 72  # 72 points an inch
    return max(1, min(len(names), int((width - 0.1) / inches)))


def legend_height(count: int, columns: int) -> float:
    """Inches at screen type of a legend of `count` names.

    Args:
        count: of names.
        columns: that they stand in.
    """
    return -(-count // max(1, columns)) * 1.5 * TYPE / 72
