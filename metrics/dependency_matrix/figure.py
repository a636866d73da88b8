"""Dependency by attribute: the side effects of each edit, one panel per target."""

from __future__ import annotations

from functools import partial

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from editbench.figures.drawing import Drawing, Records, with_methods
from editbench.figures.panels import FEWEST, new_figure
from editbench.figures.theme import Theme, order_methods

CAPTION = (
    "Mean change of every other attribute, in σ, at matched effect on the target (one panel per "
    f"target); darker is more. Cells with fewer than {FEWEST} starts, and those of unfinished runs, "
    "are empty."
)
LONG_NAME = 40  # characters; with longer names of methods one panel takes the whole width
TOP = 0.98  # quantile of the values at the end of the colour scale, so outliers do not stretch it
LIGHT = "#ffffff"
DARK = "#1a1d21"


def draw(records: Records, theme: Theme) -> list[Drawing]:
    """The figure; none where no run has the numbers."""
    found = cells(records)
    if found.empty:
        return []
    title = "Side effects on each attribute"
    return [Drawing("dependency_matrix", title, CAPTION, partial(matrix_figure, found))]


def cells(records: Records) -> pd.DataFrame:
    """One row per run and other attribute: attribute (the target), method, other, value, count."""
    rows = records.rows
    rows = rows[(rows["metric"] == "dependency_on") & (rows["count"] >= FEWEST)]
    rows = rows.rename(columns={"variant": "other"})
    found = with_methods(rows, records.runs)
    return found[["attribute", "method", "other", "value", "count"]]


def matrix_figure(found: pd.DataFrame, theme: Theme) -> Figure:
    """Methods as rows, other attributes as columns, one colour scale for all panels.

    Args:
        found: rows of `cells`.
        theme: of the methods, with their order and that of the attributes.
    """
    targets = theme.order(found["attribute"])
    methods = order_methods(found["method"], theme)
    longest = max(len(theme.method(name)) for name in methods)
    names = theme.order(found["other"])
    # Widths in inches, of the names and of a panel.
    side = 0.075 * longest
    panel = 0.55 * len(names) + 0.4
    columns = 1
    if longest < LONG_NAME:
        columns = theme.panels_per_row(len(targets), 3, panel + side / 3)
    lines = -(-len(targets) // columns)
    figure = new_figure(side + columns * panel, 0.6 + lines * (0.3 * len(methods) + 1.0))
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    top = float(found["value"].quantile(TOP)) or 1.0
    for place, axes in enumerate(panels):
        axes.set_visible(place < len(targets))
        if place >= len(targets):
            continue
        mine = found[found["attribute"] == targets[place]]
        others = [name for name in names if name != targets[place]]
        wide = mine.pivot_table(index="method", columns="other", values="value").reindex(
            methods, columns=others
        )
        axes.imshow(wide, cmap="cividis_r", vmin=0, vmax=top, aspect="auto")
        for (row, column), value in np.ndenumerate(wide.to_numpy(np.float64)):
            if np.isfinite(value):
                # The scale is dark from the middle on.
                colour = LIGHT if value > 0.55 * top else DARK
                text = f"{value:.2f}"
                axes.text(
                    column,
                    row,
                    # The cells of a paper's column are narrow.
                    text.removeprefix("0") if theme.width is not None else text,
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color=colour,
                )
        axes.set_xticks(
            range(len(others)),
            [theme.attribute(name) for name in others],
            rotation=35,
            ha="right",
            rotation_mode="anchor",
        )
        axes.set_yticks(range(len(methods)), [theme.method(name) for name in methods])
        axes.grid(False)
        axes.set_title(theme.attribute(targets[place]))
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, top), "cividis_r")
    figure.colorbar(
        scale,
        ax=panels[: len(targets)].tolist(),
        label="dependency, σ",
        location="right" if theme.width is None else "bottom",
        shrink=0.8,
        fraction=0.03,
    )
    return figure
