"""The figure of a dial: one line per method, against the number in which the worlds differ."""

from __future__ import annotations

import textwrap
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from editbench.figures.curves import Group, caption_of_groups, curve_groups, draw_pale, share_limits
from editbench.figures.drawing import Drawing
from editbench.figures.panels import STYLE, TYPE
from editbench.figures.theme import Theme
from editbench.report.dial import TITLES, Dial, dial_of, partners_of, points
from editbench.report.load import Results

TITLE_LINE = 11  # characters in a line of the title of a narrow panel


def drawings(results: Results, theme: Theme) -> list[Drawing]:
    """The figure of the dial, as a list; empty if no number can be drawn against a dial.

    Args:
        results: records of worlds that differ in the dial.
        theme: how methods and attributes are written and ordered.
    """
    found = points(results)
    dial = dial_of(results)
    if found.empty or dial is None:
        return []
    caption = dial.caption + caption_of_groups(set(found["method"]), theme)
    caption += " Intervals that leave a panel are cut at its edge."
    return [Drawing("dial", dial.title, caption, partial(dial_figure, found, dial=dial))]


def dial_figure(found: pd.DataFrame, theme: Theme, dial: Dial) -> Figure:
    """Rows are quantities and columns attributes; the reverse in a paper's column.

    Args:
        found: the numbers, see `editbench.report.dial.points`; at least one row.
        theme: how methods and attributes are written and ordered; its width decides the
            arrangement.
        dial: whose settings are on the horizontal axes.
    """
    partners = partners_of(found["attribute"], dial)
    # Attributes that the dial correlates come first.
    attributes = sorted(theme.order(found["attribute"]), key=lambda name: name not in partners)
    shown = [name for name in TITLES if name in set(found["quantity"])]
    # There are fewer quantities than attributes.
    tall = theme.panels_per_row(len(attributes), len(attributes)) < len(attributes)
    if tall:
        width = max(5.5, 2.0 * len(shown))
        height = 0.7 + 1.9 * len(attributes)
    else:
        width = max(5.5, 3.05 * len(attributes))
        height = 0.7 + 2.4 * len(shown)
    panels = partial(_panels, quantities=len(shown), attributes=len(attributes), tall=tall)
    figure, groups = curve_groups(width, height, found["method"], theme, panels)
    # Methods have the same settings, so they are shifted to keep their whiskers apart.
    gap = 0.05 / max(len(group.methods) for group in groups)
    settings = sorted(set(found["dial"]))
    # A paper's column has room only for the first and last tick label.
    inner = range(1, len(settings) - 1) if tall else ()
    ticks = ["" if k in inner else f"{x:g}" for k, x in enumerate(settings)]
    for group in groups:
        for axes, (quantity, attribute) in zip(group.panels, product(shown, attributes)):
            mine = found[(found["quantity"] == quantity) & (found["attribute"] == attribute)]
            _draw_lines(axes, mine, group, theme, gap)
            if quantity == "entanglement":
                # Zero is the value of an edit without side effects.
                axes.axhline(0, color=STYLE["axes.edgecolor"], linewidth=1.0, zorder=0)
                # Other panels may be empty because too few starts reach the effect; the caption
                # says so.
                if mine.empty and attribute not in partners:
                    text = "correlated with\nno other"
                    where = {"ha": "center", "va": "center", "transform": axes.transAxes}
                    axes.text(0.5, 0.5, text, alpha=0.7, **where)
            if quantity == shown[0]:
                name = theme.attribute(attribute)
                if attribute in partners:
                    name += f" (with {theme.attribute(partners[attribute][0])})"
                if tall:
                    axes.set_ylabel(name.replace(" (", "\n("))
                else:
                    axes.set_title(name)
            if attribute == attributes[0]:
                if tall:
                    axes.set_title(textwrap.fill(TITLES[quantity], TITLE_LINE), fontsize=TYPE)
                else:
                    axes.set_ylabel(TITLES[quantity])
            axes.set_xticks(settings, ticks)
    # Only after all lines are drawn, since setting a limit stops the autoscaling of shared axes.
    for group in groups:
        for axes, (quantity, _) in zip(group.panels, product(shown, attributes)):
            _cut_whiskers(axes, found.loc[found["quantity"] == quantity, "value"])
    share_limits(groups)
    figure.supxlabel(dial.axis, fontsize=STYLE["font.size"])
    return figure


def _draw_lines(axes: Axes, found: pd.DataFrame, group: Group, theme: Theme, gap: float) -> None:
    """Draw the lines of a group's methods in a panel, with whiskers; neighbours are `gap` apart."""
    lines = dict(list(found.groupby("method")))
    pale = [lines[name] for name in group.pale if name in lines]
    draw_pale(axes, [(line["dial"], line["value"]) for line in pale])
    for position, method in enumerate(group.methods):
        if method not in lines:
            continue
        line = lines[method]
        colour, marker = theme[method][:2]
        x = line["dial"] + (position - (len(group.methods) - 1) / 2) * gap
        axes.vlines(x, line["low"], line["high"], color=colour, linewidth=1.2, alpha=0.5)
        axes.plot(
            x,
            line["value"],
            color=colour,
            linewidth=1.5,
            linestyle=theme[method].dash,
            marker=marker,
            markersize=4.5,
            markeredgewidth=0,
        )


def _cut_whiskers(axes: Axes, values: pd.Series) -> None:
    """Cut whiskers that are longer than the range of all lines; with two seeds they may be huge.

    Args:
        axes: a panel with its lines.
        values: of all lines of the quantity.
    """
    room = float(values.max() - values.min())
    # If all lines coincide, whiskers are not cut.
    if room > 0:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, values.min() - room), min(high, values.max() + room))


def _panels(part: FigureBase, quantities: int, attributes: int, tall: bool) -> np.ndarray:
    """Panels of a group: for each quantity, its attributes in order."""
    if tall:
        grid = part.subplots(attributes, quantities, sharex=True, sharey="col", squeeze=False)
        return grid.T.ravel()
    return part.subplots(quantities, attributes, sharex=True, sharey="row", squeeze=False).ravel()
