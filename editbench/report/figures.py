"""The report's own figures, and how figures are rendered to files.

Code that these figures share with those of metrics is in the room editbench.figures.
"""

from __future__ import annotations

import io
import re

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from editbench.figures.curves import draw_pale, groups_of_attributes, share_limits
from editbench.figures.legend import put_legend
from editbench.figures.panels import FEWEST, STYLE, name_ticks, new_figure, upper_limit
from editbench.figures.theme import BAND, INK, LINE, MethodStyle, Theme, order_methods

DPI = 300  # of a PNG, at the size of a paper's column
MOST_COLUMNS = 4  # of panels
# Intervals between the ticks of the achieved effect. More do not fit a paper's column.
MOST_TICKS = 4
PLACES = 6  # decimals of positions relative to the figure; much finer than a pixel


def not_drawn(table: pd.DataFrame) -> pd.Series:
    """Whether each row of `main_table` has no accuracy to draw: it was skipped or it failed."""
    return (table["status"] != "done") | ~np.isfinite(table["accuracy"])


def accuracy_figure(table: pd.DataFrame, theme: Theme) -> Figure:
    """Accuracy per attribute, one point per method with its 95 % interval.

    A thin cross below 0 marks a method that was skipped or failed.

    Args:
        table: `main_table` of one setting.
        theme: how methods and attributes are written and ordered.
    """
    attributes = theme.order(table["attribute"])
    methods = order_methods(table["method"], theme)
    # Wide enough to keep the whiskers of neighbouring attributes apart.
    width = 1.2 + len(attributes) * (0.55 + 0.16 * len(methods))
    # In a paper's column the names are slanted and need more height.
    height = 3.9 if theme.width is None else 4.9
    figure = new_figure(max(5.5, min(12.5, width)), height)
    axes = figure.add_subplot()
    # The points of an attribute are side by side, centred at its tick.
    step = min(0.13, 0.8 / max(len(methods), 1))
    top = upper_limit(table["accuracy_high"])
    # Bands behind every second attribute show to which one a point belongs.
    for place in range(0, len(attributes), 2):
        axes.axvspan(place - 0.5, place + 0.5, color=BAND, linewidth=0, zorder=0)
    marked = table.assign(not_drawn=not_drawn(table))
    for position, method in enumerate(methods):
        offset = (position - (len(methods) - 1) / 2) * step
        colour, marker = theme[method][:2]
        for record in marked[table["method"] == method].to_dict("records"):
            x = attributes.index(record["attribute"]) + offset
            if record["not_drawn"]:
                axes.plot(
                    x,
                    # Below 0, where there can be no accuracy.
                    -0.034 * top,
                    marker="x",
                    color=colour,
                    markersize=5,
                    markeredgewidth=1.4,
                    clip_on=False,
                )
                continue
            axes.vlines(
                x,
                record["accuracy_low"],
                record["accuracy_high"],
                color=colour,
                linewidth=1.7,
                alpha=0.65,
            )
            axes.plot(
                x,
                record["accuracy"],
                marker=marker,
                color=colour,
                markersize=5.5,
                markeredgewidth=0,
            )
    axes.set_xlim(-0.5, len(attributes) - 0.5)
    axes.set_ylim(-0.06 * top, top)
    name_ticks(axes, [theme.attribute(name) for name in attributes], theme)
    axes.grid(False, axis="x")
    axes.set_ylabel("accuracy")
    put_legend(figure, methods, theme, line=False)
    return figure


def curve_figure(curve: pd.DataFrame, theme: Theme, ylabel: str) -> Figure:
    """A metric against the achieved effect, one panel per attribute.

    Bins with fewer than FEWEST starts or with a note are left out.

    Args:
        curve: rows with method, attribute, x, value, low, high, count, note.
        theme: of the methods.
        ylabel: of the vertical axis.
    """
    attributes = theme.order(curve["attribute"])
    figure, groups = groups_of_attributes(curve, theme, MOST_COLUMNS, (3.05, 2.5), 0.6, ylabel)
    enough = (curve["count"] >= FEWEST) & (curve["note"] == "") & np.isfinite(curve["value"])
    # Attribute dependency excludes methods that hardly ever succeed.
    left = curve[curve["note"].str.startswith("excluded")]
    excluded = set(zip(left["attribute"], left["method"]))
    drawn = {}
    for (attribute, method), rows in curve[enough].groupby(["attribute", "method"]):
        if (attribute, method) not in excluded:
            drawn[attribute, method] = rows
    for group in groups:
        for axes, attribute in zip(group.panels, attributes):
            found = [drawn.get((attribute, method)) for method in group.pale]
            draw_pale(axes, [(rows["x"], rows["value"]) for rows in found if rows is not None])
            for method in group.methods:
                if (attribute, method) in drawn:
                    _draw_curve(axes, drawn[attribute, method], theme[method])
            # Excluded methods are named in the panel, to explain their missing lines.
            out = [theme.method(name) for name in group.methods if (attribute, name) in excluded]
            if out:
                note = axes.text(
                    0.03,
                    0.97,
                    "excluded: " + ",\n".join(out),
                    transform=axes.transAxes,
                    fontsize=7.5,
                    va="top",
                    alpha=0.75,
                )
                # Otherwise a long name would make the group's panels narrower.
                note.set_in_layout(False)
        group.panels[0].set_xlim(left=0)
        # The default locator chooses other ticks once the layout has changed the width of a panel,
        # and then their labels have no room. The panels of a group share this axis.
        group.panels[0].xaxis.set_major_locator(MaxNLocator(MOST_TICKS, steps=[1, 2, 5, 10]))
        # A signed curve needs room below 0.
        if (curve["value"].dropna() >= 0).all():
            group.panels[0].set_ylim(bottom=0)
    share_limits(groups)
    figure.supxlabel("achieved effect, σ of the target", fontsize=STYLE["font.size"])
    return figure


def _draw_curve(axes: Axes, rows: pd.DataFrame, style: MethodStyle) -> None:
    """Draw one curve with its band."""
    axes.fill_between(
        rows["x"], rows["low"], rows["high"], color=style.colour, alpha=0.16, linewidth=0
    )
    axes.plot(
        rows["x"],
        rows["value"],
        color=style.colour,
        linewidth=1.7,
        linestyle=style.dash,
        marker=style.marker,
        markersize=3.6,
        markeredgewidth=0,
    )


def render(figure: Figure, kind: str) -> bytes:
    """Render a figure to the bytes of a file, on a white background.

    Args:
        figure: the figure.
        kind: 'png' (300 dpi), 'pdf' or 'svg'.
    """
    buffer = io.BytesIO()
    # Keep the font that the report may have chosen.
    style = STYLE | {"font.family": matplotlib.rcParams["font.family"]}
    with matplotlib.rc_context(style):  # type: ignore[arg-type]
        # Without dates, so that the files are reproducible.
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        # The layout is computed here, since savefig would draw the whole figure twice for it.
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
            _round_layout(figure)
            figure.set_layout_engine(None)
        figure.savefig(buffer, format=kind, dpi=DPI, facecolor="white", metadata=metadata)
        figure.set_layout_engine(engine)
    return buffer.getvalue()


def _round_layout(figure: Figure | SubFigure) -> None:
    """Round the relative positions of subfigures and axes, so that files are reproducible.

    The layout solver sums in the order of memory addresses, so its last digits vary.
    """
    for part in figure.subfigs:
        part.bbox_relative.set_points(part.bbox_relative.get_points().round(PLACES))
        _round_layout(part)
    for axes in figure.axes:
        place = axes.get_position(original=True)
        kept = axes.get_in_layout()
        axes.set_position(Bbox(place.get_points().round(PLACES)))
        # Setting a position excludes the axes from the layout, which is needed again later for a
        # smaller figure.
        axes.set_in_layout(kept)


def for_page(svg: bytes) -> str:
    """Convert an SVG of `render` for use inside a page, with the page's colours."""
    text = svg.decode()
    for colour, name in ((INK, "--ink"), (LINE, "--line"), (BAND, "--band")):
        text = text.replace(colour, f"var({name})")
    # The first white rectangle is the background; the page has its own.
    text = text.replace("fill: #ffffff", "fill: none", 1)
    # Remove the XML header and metadata, which do not belong inside a page.
    text = text[text.index("<svg") :]
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
