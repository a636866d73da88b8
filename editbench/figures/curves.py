"""Figures of curves: many methods are drawn in groups, each with its legend and panels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from editbench.figures.legend import legend_height, put_legend
from editbench.figures.panels import LEFT, fold, new_figure, panel_grid
from editbench.figures.theme import LINE, Theme, order_methods

# Approximate width of a letter of a panel's title at screen size, which is bold, in inches.
PER_LETTER_OF_TITLE = 0.095
MOST = 8  # methods in colour in one panel of curves; more are drawn in groups


@dataclass(frozen=True)
class Group:
    """A part of a figure of curves: some methods in their own styles, all others pale.

    Attributes:
        methods: labels of those in their own styles, in the order of the legend.
        pale: labels of the others.
        panels: (n,) axes, row by row.
    """

    methods: list[str]
    pale: list[str]
    panels: np.ndarray


def grouped(methods: Iterable[str], theme: Theme) -> list[list[str]]:
    """Divide methods into groups of at most MOST, each with as many different colours as possible.

    Up to MOST methods are one group. If there are several groups, each also contains the floors,
    since these are the baselines of all other methods.

    Args:
        methods: labels, in any order; duplicates are ignored.
        theme: gives their colours and order, and which of them are floors.

    Returns:
        Labels of each group, the floors at its end.
    """
    names = order_methods(methods, theme)
    if len(names) <= MOST:
        return [names]
    floors = [name for name in names if theme[name].floor]
    # More floors would leave too little room for methods, so further ones are treated like methods.
    floors = floors[: MOST // 2]
    rest = [name for name in names if name not in floors]
    size = MOST - len(floors)
    count = -(-len(rest) // size)
    # The groups are made equally large: a last group of one method would look like a mistake.
    size = -(-len(rest) // count)
    groups: list[list[str]] = [[] for _ in range(count)]
    for name in rest:
        room = [group for group in groups if len(group) < size]
        colour = theme[name].colour
        apart = [group for group in room if colour not in [theme[other].colour for other in group]]
        # Successive names are often variants of one method, so the first suitable group is taken.
        (apart or room)[0].append(name)
    return [[*group, *floors] for group in groups]


def caption_of_groups(methods: Iterable[str], theme: Theme) -> str:
    """A sentence about the groups, for the caption of a figure of curves; '' if there is one group.

    Args:
        methods: labels of the methods in the figure.
        theme: of the methods.

    Returns:
        The sentence, with a space before it.
    """
    if len(grouped(methods, theme)) == 1:
        return ""
    floors = any(theme[name].floor for name in methods)
    text = f" Each group shows up to {MOST} methods in colour and all others pale"
    return text + ("; floors appear in every group and are named in the first." if floors else ".")


def curve_groups(
    width: float,
    height: float,
    methods: Iterable[str],
    theme: Theme,
    panels: Callable[[FigureBase], np.ndarray],
) -> tuple[Figure, list[Group]]:
    """An empty figure for curves of methods, with a legend above the panels of each group.

    More than MOST curves cannot be distinguished in one panel. The panels are therefore repeated
    for each group of `grouped`, below each other, and the caller draws the curves of the other
    groups with `draw_pale`.

    Args:
        width: of the figure, in inches.
        height: of the panels of a group, in inches.
        methods: labels.
        theme: of the methods.
        panels: makes the panels (n,) of a group in its part of the figure.
    """
    several = grouped(methods, theme)
    figure = new_figure(width, height * len(several))
    legends = [several[0]]
    # Floors are in every group, but only the first legend names them.
    for group in several[1:]:
        legends.append([name for name in group if name not in several[0]])
    parts: list[FigureBase] = [figure]
    if len(several) > 1:
        heights = []
        for named in legends:
            heights.append(height + legend_height([theme.method(name) for name in named], width))
        below = figure.subfigures(len(several), 1, height_ratios=heights)
        parts = list(cast(np.ndarray, below))
    groups = []
    for group, names, part in zip(several, legends, parts):
        pale = [name for name in order_methods(methods, theme) if name not in group]
        groups.append(Group(group, pale, panels(part)))
        put_legend(part, names, theme)
    return figure, groups


def groups_of_attributes(
    curves: pd.DataFrame,
    theme: Theme,
    most: int,
    panel: tuple[float, float],
    margin: float,
    label: str = "",
) -> tuple[Figure, list[Group]]:
    """The figure of `curve_groups`, with one panel per attribute in each group.

    Args:
        curves: rows with method and attribute.
        theme: of the methods; it also gives the order of the attributes.
        most: maximum number of panels side by side.
        panel: width and height of a panel, in inches.
        margin: height of the titles and axis labels of a group, in inches.
        label: of the vertical axes, next to the first panel of each row.
    """
    attributes = theme.order(curves["attribute"])
    columns = theme.panels_per_row(len(attributes), most)
    lines = -(-len(attributes) // columns)
    figure, groups = curve_groups(
        max(5.5, panel[0] * columns),
        margin + panel[1] * lines,
        curves["method"],
        theme,
        partial(panel_grid, count=len(attributes), columns=columns),
    )
    width = panel[0] if theme.width is None else (theme.width - LEFT) / columns
    letters = int(width / PER_LETTER_OF_TITLE)
    for group in groups:
        for place, (axes, attribute) in enumerate(zip(group.panels, attributes)):
            # Matplotlib would draw a long title into the next panel.
            axes.set_title(fold(theme.attribute(attribute), letters))
            # If the last row is not full, the lowest panel of a column may be in the row before.
            axes.tick_params(labelbottom=place + columns >= len(attributes))
            if place % columns == 0:
                axes.set_ylabel(label)
    return figure, groups


def draw_pale(axes: Axes, curves: Iterable[tuple[Any, Any]]) -> None:
    """Draw the curves of other groups in a pale grey, for comparison.

    Args:
        axes: to draw on.
        curves: x and y of each curve, of the same length.
    """
    x: list[float] = []
    y: list[float] = []
    # One line with gaps is drawn much faster than one line per curve.
    for across, up in curves:
        x += [*across, np.nan]
        y += [*up, np.nan]
    if x:
        axes.plot(x, y, color=LINE, linewidth=0.9, zorder=1)


def share_limits(groups: Sequence[Group]) -> None:
    """Give the panels of all groups the same limits.

    They may differ before, since a group draws the bands of only its own methods.
    """
    for same in zip(*(group.panels for group in groups)):
        across = np.array([axes.get_xlim() for axes in same])
        up = np.array([axes.get_ylim() for axes in same])
        for axes in same:
            axes.set_xlim(across[:, 0].min(), across[:, 1].max())
            axes.set_ylim(up[:, 0].min(), up[:, 1].max())
