"""The figure of accuracy against side effects and against every cost, with the Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from editbench.figures.legend import put_legend
from editbench.figures.panels import new_figure, panel_grid, upper_limit
from editbench.figures.theme import INK, Theme, order_methods
from editbench.report.cells import Column, number, over_what
from editbench.report.costs import COSTS, front

SIDE = Column("ad_at", "AD", interval=True, better=False)
LABELS = {
    "ad_at": "mean AD at matched effect, σ",
    "fit_seconds": "fit, seconds",
    "labels_used": "labels",
    "generator_calls": "generator calls",
    "edits_per_second": "edits per second",
    "walk_seconds": "walk, seconds",
    "peak_memory_mb": "peak memory, MiB",
}
# Axes that are linear. Costs differ by powers of ten between methods, unlike AD.
LINEAR = ("ad_at",)
SUBS = ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))  # ticks per decade, from dense to sparse
# Least distance of ticks, in units of matplotlib's estimate for a label (3 em); four digits need
# 2.4 em.
LEAST_ROOM = 0.85
# Least values on a logarithmic axis, 1 by default. Smaller ones are drawn there, such as the 0 of a
# method without a fit or labels.
LEAST_SHOWN = {"fit_seconds": 0.01}
CAPTION = (
    "Mean accuracy with its 95 % interval, against mean AD and against each cost. The axis labels "
    "state what the means are over, which is the same for every method. The arrow points to the "
    "better side. The dashed line joins the Pareto front, without floors: the methods for which no "
    "other one is at least as good in both quantities and better in one. Quantities that are the "
    "same for all methods are not drawn."
)


def trade_figure(means: pd.DataFrame, theme: Theme) -> Figure:
    """One panel for AD and one for each cost that differs between methods.

    Args:
        means: `cost_table` of one setting.
        theme: colours and names, and the size of the figure.
    """
    # Methods without a mean have no accuracy over the common attributes.
    drawn = means[np.isfinite(means["accuracy"])]
    panels = [
        column
        for column in (SIDE, *COSTS)
        if column.key != "walk_seconds" and drawn[column.key].nunique() > 1
    ]
    # A figure needs at least one panel, even if all costs agree.
    panels = panels or [COSTS[0]]
    columns = theme.panels_per_row(len(panels), 3)
    lines = -(-len(panels) // columns)
    figure = new_figure(1.2 + 3.05 * columns, 0.7 + 2.55 * lines)
    grid = panel_grid(figure, len(panels), columns, sharex=False)
    for place, (axes, column) in enumerate(zip(grid, panels)):
        _panel(axes, drawn, column, theme)
        if place % columns == 0:
            # One line for each part, since the panels of a paper's column are not tall.
            label = _named("mean accuracy", drawn, "accuracy")
            axes.set_ylabel(label.replace(", ", ",\n"))
    put_legend(figure, order_methods(drawn["method"], theme), theme, line=False)
    return figure


def _panel(axes: Axes, means: pd.DataFrame, column: Column, theme: Theme) -> None:
    known = means[np.isfinite(means[column.key])]
    logarithmic = column.key not in LINEAR
    floor = LEAST_SHOWN.get(column.key, 1.0)
    x = known[column.key].clip(lower=floor) if logarithmic else known[column.key]
    place = dict(zip(known["method"], zip(x, known["accuracy"])))
    # The front is computed from the measured numbers; only the drawing is clipped.
    line = [place[method] for method in front(known[~known["floor"]], column)]
    # Steps, not straight lines, since nothing is known between two methods.
    if line:
        axes.plot(
            *zip(*line),
            color=INK,
            linewidth=0.9,
            linestyle=(0, (3, 2)),
            alpha=0.55,
            zorder=1,
            drawstyle="steps-post",
        )
    for record in known.to_dict("records"):
        colour, marker = theme[record["method"]][:2]
        at, accuracy = place[record["method"]]
        if np.isfinite(record["accuracy_low"]):
            axes.vlines(
                at,
                record["accuracy_low"],
                record["accuracy_high"],
                color=colour,
                linewidth=1.3,
                alpha=0.6,
            )
        axes.plot(at, accuracy, marker=marker, color=colour, markersize=7, markeredgewidth=0)
    if logarithmic:
        _log_axis(axes, x, floor)
    else:
        axes.margins(x=0.12)
        axes.set_xlim(left=0)
    label = f"{LABELS[column.key]} {'→' if column.better else '←'}"
    axes.set_xlabel(_named(label, known, column.key) if column is SIDE else label)
    axes.set_ylim(0, upper_limit(means["accuracy_high"].fillna(means["accuracy"])))


def _named(label: str, means: pd.DataFrame, key: str) -> str:
    """The label of an axis, and what its means are over."""
    records = means[np.isfinite(means[key])].to_dict("records")
    if not records:
        return label
    return f"{label}\n{over_what(records[0], key)}"


def _log_axis(axes: Axes, values: pd.Series, floor: float) -> None:
    axes.set_xscale("log")
    # On a logarithmic axis, a margin is a factor.
    axes.set_xlim(values.min() / 1.9, values.max() * 1.9)
    # In less than one and a half decades, powers of ten would give at most one or two ticks.
    narrow = values.max() < 30 * values.min()
    axes.xaxis.set_major_locator(SpacedLogLocator() if narrow else LogLocator())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(
        # The tick at the least value also stands for all smaller ones.
        lambda value, _: (
            number(value) if value > 1.1 * floor else f"≤{floor:g}" if value > 0.9 * floor else ""
        )
    )


class SpacedLogLocator(LogLocator):
    """Places ticks at and between powers of ten, as many as have room for their labels.

    The room depends on the layout and is known only when the figure is drawn.
    """

    def __call__(self) -> Sequence[float]:
        low, high = np.log10(self.axis.get_view_interval())  # type: ignore[union-attr]
        room = self.axis.get_tick_space() / (high - low)  # type: ignore[union-attr]
        decades = np.arange(np.floor(low), np.ceil(high))
        for subs in SUBS:
            ticks = np.add.outer(decades, np.log10(subs)).ravel()
            shown = ticks[(ticks >= low) & (ticks <= high)]
            if len(shown) > 1 and np.diff(shown).min() * room >= LEAST_ROOM:
                break
        self.set_params(subs=subs)
        return super().__call__()
