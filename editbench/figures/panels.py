"""Figures, their panels and axes. Without pyplot, so matplotlib's global state does not change."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase

from editbench.figures.theme import INK, LINE, Theme

FEWEST = 30  # starts; with fewer an interval says little, and curves hide the bin
TYPE = 9.5  # size of type on the screen, in points
MOST_LINES = 3  # of a name below an axis; with more, names are slanted
LEFT = 0.6  # approximate width of the numbers and the label of a vertical axis, in inches
PER_LETTER = 0.075  # approximate width of a letter at screen size, in inches
# The font of a report's style -> its family in matplotlib.
FONTS = {"sans": "sans-serif", "serif": "serif"}
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Liberation Sans", "Arial", "Helvetica", "DejaVu Sans"],
    # Most papers use Times or a similar font; STIX is part of matplotlib.
    "font.serif": ["Times New Roman", "Liberation Serif", "STIXGeneral", "DejaVu Serif"],
    "font.size": TYPE,
    # Names come from users: a method named $x$ would be set as a formula, and $\x$ is an error.
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.hashsalt": "editbench",
    "svg.fonttype": "path",
    # TrueType, since publishers reject Type 3 fonts, the default.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.unicode_minus": True,
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that is not registered with pyplot.

    Args:
        width: in inches.
        height: in inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    # The default canvas of a figure without pyplot cannot draw.
    FigureCanvasAgg(figure)
    return figure


def panel_grid(figure: FigureBase, count: int, columns: int, sharex: bool = True) -> np.ndarray:
    """Panels in rows, with a common vertical axis.

    Args:
        figure: a figure, or a part of one.
        count: number of panels that are used.
        columns: number of panels per row.
        sharex: whether the horizontal axis is common too.

    Returns:
        (rows * columns,) axes, row by row; those from `count` on are invisible.
    """
    lines = -(-count // columns)
    panels = figure.subplots(lines, columns, sharex=sharex, sharey=True, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.set_visible(False)
    return panels


def bare(panels: np.ndarray) -> None:
    """Remove ticks, grid and frame from axes (any shape) that show images."""
    for axes in panels.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        for side in axes.spines.values():
            side.set_visible(False)


def name_ticks(axes: Axes, names: list[str], theme: Theme) -> None:
    """Put names at 0, 1, 2, ... of the horizontal axis, folded or slanted if they would touch.

    Args:
        axes: of the ticks.
        names: texts of one or more lines.
        theme: gives the width of the figure if it is limited; otherwise it is that of the figure.
    """
    figure = axes.figure.figure
    width = theme.width if theme.width is not None else figure.get_figwidth()
    letters = int((width - LEFT) / (len(names) * PER_LETTER)) - 1
    if longest_line(names) <= letters:
        axes.set_xticks(range(len(names)), names)
        return
    folded = [fold(name, max(letters, 1)) for name in names]
    lines = max(name.count("\n") + 1 for name in folded)
    if lines <= MOST_LINES and longest_line(folded) <= letters:
        axes.set_xticks(range(len(names)), folded)
    else:
        axes.set_xticks(range(len(names)), names)
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def longest_line(names: list[str]) -> int:
    """Number of letters of the longest line of some texts."""
    return max(len(line) for name in names for line in name.splitlines())


def fold(name: str, letters: int) -> str:
    """A name in lines of at most so many letters; a longer word keeps its own line."""
    lines = []
    for line in name.splitlines():
        lines += textwrap.wrap(line, letters, break_long_words=False) or [""]
    return "\n".join(lines)


def show_picture(axes: Axes, picture: np.ndarray, most: float) -> None:
    """Draw an image in grey or colour.

    Args:
        axes: to draw in.
        picture: (h, w, C) with C = 1 or 3 and values from 0 to `most`.
        most: the value of white: 255 for bytes, 1 for floats.
    """
    shown = picture if picture.shape[2] == 3 else picture[..., 0]
    # Without limits, imshow would stretch the contrast of a grey image.
    axes.imshow(shown, cmap="gray", vmin=0, vmax=most)


def upper_limit(values: pd.Series) -> float:
    """Upper end of an axis of shares: slightly above 1, or lower if all values are low.

    Args:
        values: that are drawn; they may be NaN.
    """
    finite = values[np.isfinite(values)]
    if len(values) and not len(finite):
        return 1.02
    highest = finite.max() if len(values) else 1.0
    return float(min(1.02, max(0.2, 1.08 * highest)))
