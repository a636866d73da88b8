"""Plots, drawn without pyplot: nothing of matplotlib's global state is kept or changed.

A method has the same colour and marker in every figure. Colours are told apart by people with the common colour
vision deficiencies (after Tol); `random`, the floor, is grey and dashed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from itertools import cycle
from typing import Literal, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from editbench.report.paper import columns_that_fit, legend_height
from editbench.report.tables import FEWEST, RANDOM

DPI = 300  # of a PNG, at the size of a paper's column
INK, LINE, BAND = "#24292f", "#d3d8de", "#f2f4f6"  # the page swaps these for its own, light or dark
COLOURS = ("#4477aa", "#ee7733", "#228833", "#aa3377", "#33aacc", "#bba811", "#ee5566", "#8866cc")
BANDED = 8  # methods up to which curves have their interval bands
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Liberation Sans", "Arial", "Helvetica", "DejaVu Sans"],
    "font.size": 9.5,
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
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.unicode_minus": True,
}


class Look(NamedTuple):
    """How a method is drawn."""

    colour: str
    marker: str
    floor: bool = False

    @property
    def dash(self) -> Literal["-", "--"]:
        return "--" if self.floor else "-"


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """method -> look, by position among the sorted names, so the same set always gets the same looks."""
    names = sorted(set(methods))
    pairs = zip(cycle(COLOURS), cycle(MARKERS))  # 8 and 7 have no common factor: 56 different pairs
    return {
        name: Look("#8a8f98", "o", True) if name.split(" ")[0] == RANDOM else Look(*next(pairs))
        for name in names
    }


def accuracy_figure(table: pd.DataFrame, look: dict[str, Look]) -> Figure:
    """Accuracy per attribute, one point a method with its 95 % interval; a cross on the floor: skipped or failed."""
    attributes = sorted(set(table["attribute"]))
    methods = order_methods(table)
    figure = new_figure(
        max(5.5, min(12.5, 1.2 + len(attributes) * (0.55 + 0.16 * len(methods)))), 3.9
    )
    axes = figure.add_subplot()
    step = min(0.13, 0.8 / max(len(methods), 1))
    top = upper_limit(table["accuracy_high"])
    for place in range(0, len(attributes), 2):
        axes.axvspan(place - 0.5, place + 0.5, color=BAND, linewidth=0, zorder=0)
    for position, method in enumerate(methods):
        offset = (position - (len(methods) - 1) / 2) * step
        colour, marker = look[method][:2]
        for record in table[table["method"] == method].to_dict("records"):
            x = attributes.index(record["attribute"]) + offset
            if record["status"] != "done" or not np.isfinite(record["accuracy"]):
                axes.plot(
                    x,
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
    axes.set_xticks(range(len(attributes)), [name.replace("_", " ") for name in attributes])
    axes.grid(False, axis="x")
    axes.set_ylabel("accuracy")
    put_legend(figure, methods, look, line=False)
    return figure


def curve_figure(curve: pd.DataFrame, look: dict[str, Look], ylabel: str) -> Figure:
    """A metric against the achieved effect, a panel an attribute; bins of fewer than 30 points or with a note stay out,
    and so do the bands of more methods than can be told apart.

    Args:
        curve: rows with method, attribute, x, value, low, high, n, note.
    """
    attributes = sorted(set(curve["attribute"]))
    columns = min(len(attributes), 4)
    lines = -(-len(attributes) // columns)
    banded = curve["method"].nunique() <= BANDED
    figure = new_figure(max(5.5, 3.05 * columns), 0.6 + (2.5 if banded else 3.4) * lines)
    panels = panel_grid(figure, len(attributes), columns)
    for place, (axes, attribute) in enumerate(zip(panels, attributes)):
        out = []
        for method in sorted(set(curve["method"])):
            rows = curve[(curve["attribute"] == attribute) & (curve["method"] == method)]
            shown = rows[(rows["n"] >= FEWEST) & (rows["note"] == "") & np.isfinite(rows["value"])]
            colour, dash = look[method].colour, look[method].dash
            if rows["note"].str.startswith("excluded").any():
                out.append(method)
            elif len(shown):
                if banded:
                    axes.fill_between(
                        shown["x"],
                        shown["low"],
                        shown["high"],
                        color=colour,
                        alpha=0.16,
                        linewidth=0,
                    )
                axes.plot(
                    shown["x"],
                    shown["value"],
                    color=colour,
                    linewidth=1.7,
                    linestyle=dash,
                    marker=look[method].marker,
                    markersize=3.6,
                    markeredgewidth=0,
                )
        axes.set_title(attribute.replace("_", " "))
        if out:
            axes.text(
                0.03,
                0.97,
                "excluded: " + ", ".join(out),
                transform=axes.transAxes,
                fontsize=7.5,
                va="top",
                alpha=0.75,
                wrap=True,
            )
        axes.tick_params(labelbottom=place + columns >= len(attributes))
        if place % columns == 0:
            axes.set_ylabel(ylabel)
    figure.supxlabel("achieved effect, σ of the target", fontsize=STYLE["font.size"])
    panels[0].set_xlim(left=0)
    if (curve["value"].dropna() >= 0).all():
        panels[0].set_ylim(bottom=0)
    put_legend(
        figure, sorted(set(curve["method"]), key=lambda name: (look[name].floor, name)), look
    )
    return figure


def render(figure: Figure, kind: str) -> bytes:
    """The figure as 'png' (300 dpi), 'pdf' or 'svg' on white, or 'page': an SVG that takes the colours of its page."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        if kind == "page":
            figure.savefig(
                buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
            )
            text = buffer.getvalue().decode()
            for colour, name in ((INK, "--ink"), (LINE, "--line"), (BAND, "--band")):
                text = text.replace(colour, f"var({name})")
            return re.sub(
                r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL
            ).encode()
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        figure.savefig(buffer, format=kind, dpi=DPI, facecolor="white", metadata=metadata)
    return buffer.getvalue()


def upper_limit(values: pd.Series) -> float:
    """The upper end of an axis of shares that starts at 0: 1, or less where all values are low."""
    highest = values[np.isfinite(values)].max() if len(values) else 1.0
    return float(min(1.02, max(0.2, 1.08 * highest))) if np.isfinite(highest) else 1.02


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panel_grid(figure: Figure, count: int, columns: int, sharex: bool = True) -> np.ndarray:
    """`count` axes in rows of `columns` with a common y; what is left of the last row stays empty."""
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


def order_methods(table: pd.DataFrame) -> list[str]:
    return list(
        dict.fromkeys(
            table.sort_values(
                "method", key=lambda c: c.map(lambda m: (m.split(" ")[0] == RANDOM, m))
            )["method"]
        )
    )


def put_legend(
    figure: Figure, methods: list[str], look: dict[str, Look], line: bool = True
) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=look[m].colour,
            linestyle=look[m].dash if line else "none",
            linewidth=2,
            marker=look[m].marker,
            markersize=6,
            markeredgewidth=0,
        )
        for m in methods
    ]
    columns = columns_that_fit(methods, float(figure.get_figwidth()))
    legend = figure.legend(
        handles,
        methods,
        loc="outside upper left",
        ncols=columns,
        handlelength=1.8 if line else 1,
        columnspacing=1.4,
        handletextpad=0.5,
    )
    figure.set_figheight(figure.get_figheight() + legend_height(legend))  # the panels keep theirs
