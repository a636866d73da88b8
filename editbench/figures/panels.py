"""Figures, their panels and axes.

Figures are drawn without pyplot: nothing of matplotlib's global state is kept or changed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase

from editbench.figures.theme import INK, LINE, Theme

FEWEST = 30  # starts: below this an interval says little, and curves hide the bin
TYPE = 9.5  # points, on the screen
PER_LETTER = 0.075  # inches of a letter at screen type, about
# Families of matplotlib, by the word of a report's style.
FONTS = {"sans": "sans-serif", "serif": "serif"}
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Liberation Sans", "Arial", "Helvetica", "DejaVu Sans"],
    # Times and its like, which most papers are set in; STIX comes with matplotlib.
    "font.serif": ["Times New Roman", "Liberation Serif", "STIXGeneral", "DejaVu Serif"],
    "font.size": TYPE,
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
    # TrueType: publishers refuse the Type 3 fonts that are the default.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.unicode_minus": True,
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, which no global state of matplotlib refers to.

    Args:
        width: inches.
        height: inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    # The canvas that a figure has without pyplot cannot draw.
    FigureCanvasAgg(figure)
    return figure


def panel_grid(figure: FigureBase, count: int, columns: int, sharex: bool = True) -> np.ndarray:
    """Axes in rows of `columns` with a common y; what is left of the last row stays empty.

    Args:
        figure: the whole, or a part of it.
        count: of panels that are used.
        columns: panels per row.
        sharex: whether all panels have a common x too.

    Returns:
        (rows * columns,) axes, row by row; those from `count` on are invisible.
    """
    lines = -(-count // columns)
    panels = figure.subplots(lines, columns, sharex=sharex, sharey=True, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.set_visible(False)
    return panels


def bare(panels: np.ndarray) -> None:
    """Axes that hold pictures: no ticks, grid or frame."""
    for axes in panels.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        for side in axes.spines.values():
            side.set_visible(False)


def name_ticks(axes: Any, names: list[str], theme: Theme) -> None:
    """Names at 0, 1, 2, ... of the horizontal axis; slanted where they would touch.

    Args:
        axes: whose ticks they are.
        names: as they are written; of two lines the longer counts.
        theme: which knows the width of the figure.
    """
    longest = max(len(line) for name in names for line in name.splitlines())
    axes.set_xticks(range(len(names)), names)
    if theme.width is not None and len(names) * (longest + 1) * PER_LETTER > theme.width:
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def show_picture(axes: Any, picture: np.ndarray, most: float) -> None:
    """Draw a picture, a grey one of 1 channel.

    Args:
        axes: that it is drawn in.
        picture: (h, w, C) of 1 or 3 channels with values from 0 to `most`.
        most: the value of white: 255 for bytes, 1 for floats.
    """
    shown = picture if picture.shape[2] == 3 else picture[..., 0]
    # Without limits, imshow would stretch a grey picture from its darkest pixel to its brightest.
    axes.imshow(shown, cmap="gray", vmin=0, vmax=most)


def upper_limit(values: pd.Series) -> float:
    """The upper end of an axis of shares that starts at 0: 1, or less where all values are low."""
    finite = values[np.isfinite(values)]
    if len(values) and not len(finite):
        return 1.02
    highest = finite.max() if len(values) else 1.0
    return float(min(1.02, max(0.2, 1.08 * highest)))
