"""Logits of two attributes before and after the edit, one panel per method (Chen et al. 2022, Fig.
7b)."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from editbench.figures.drawing import Drawing, Records, with_methods
from editbench.figures.panels import STYLE, new_figure, panel_grid
from editbench.figures.theme import INK, Theme, order_methods

ENDS = ("scatter_x0", "scatter_y0", "scatter_x1", "scatter_y1")
MOST = 300  # arrows per panel, since more would overlap; the numbers are computed from all
# Colours of the crosses, of the flat arrow, and of the boundary.
START = "#cc3344"
FLAT = "#ee99aa"
EDGE = "#4477aa"
CAPTION = (
    "Each line is one start, from its cross (before the edit) to its dot (at the crossing or, if "
    "there is none, at the end of the walk). The arrow at the top shows an edit that does not change "
    "the other attribute, so flat lines are good (the paper's caption contradicts its text here). "
    "Dots on the other side of the dashed line than the crosses have reached the target class. At "
    f"most {MOST} lines are drawn; slope and shares are over all starts."
)


def draw(records: Records, theme: Theme) -> list[Drawing]:
    """A figure for each attribute that has pairs of logits."""
    found = []
    for (attribute, other), group in scatter_points(records).groupby(["attribute", "other"]):
        pair = f"{theme.attribute(str(attribute))} against {theme.attribute(str(other))}"
        found.append(
            Drawing(
                f"scatter_{attribute}_{other}",
                f"Logits before and after: {pair}",
                CAPTION,
                partial(scatter_figure, group, records),
                first=True,
            )
        )
    return found


def scatter_points(records: Records) -> pd.DataFrame:
    """One row per start: run_id, method, attribute, other, and the columns ENDS.

    Failed walks are left out.
    """
    rows = records.samples[records.samples["metric"].isin(ENDS)]
    wide = rows.pivot_table(
        index=["run_id", "start", "variant"], columns="metric", values="value", aggfunc="first"
    )
    wide = wide.reindex(columns=list(ENDS)).dropna().reset_index()
    # Samples of older versions do not name the other attribute, which was a required option then.
    other = {}
    for run, config in records.configs.items():
        options = (config.get("metric") or {}).get("logit_scatter") or {}
        other[run] = options.get("other", "other attribute")
    named = wide["variant"].where(wide["variant"] != "", wide["run_id"].map(other))
    return with_methods(wide.drop(columns="variant").assign(other=named), records.runs)


def scatter_figure(points: pd.DataFrame, records: Records, theme: Theme) -> Figure:
    """The points of one pair of attributes, one panel per method (Chen et al. 2022, Fig. 7b).

    Args:
        points: rows of `scatter_points` with the same attribute and the same other one; logits.
        records: of the runs, for the numbers above the panels.
        theme: of the methods and attributes.
    """
    methods = order_methods(points["method"], theme)
    columns = theme.panels_per_row(len(methods), 3)
    lines = -(-len(methods) // columns)
    figure = new_figure(max(5.5, 3.3 * columns), 0.4 + 2.9 * lines)
    panels = panel_grid(figure, len(methods), columns)
    ends = points[list(ENDS)].to_numpy(np.float64)
    heights = np.sort(ends[:, 1::2], None)
    widths = np.sort(ends[:, ::2], None)
    for axes, method in zip(panels, methods):
        mine = points[points["method"] == method].sort_values("start")
        # Every k-th arrow, so that the drawn ones are spread over all starts.
        drawn = mine[list(ENDS)].to_numpy(np.float64)[:: -(-len(mine) // MOST)]
        axes.add_collection(
            LineCollection(drawn.reshape(-1, 2, 2).tolist(), colors=INK, linewidths=0.5, alpha=0.3)
        )
        axes.plot(
            drawn[:, 0],
            drawn[:, 1],
            linestyle="none",
            marker="x",
            color=START,
            markersize=3.6,
            markeredgewidth=0.9,
        )
        axes.plot(
            drawn[:, 2],
            drawn[:, 3],
            linestyle="none",
            marker="o",
            color=theme[method].colour,
            markersize=3.4,
            markeredgewidth=0,
        )
        axes.axvline(0, color=EDGE, linestyle="--", linewidth=1.2)
        axes.set_title(
            f"{theme.method(method)}\n{_numbers(records, mine['run_id'].iloc[0])}", fontsize=8.5
        )
    # The flat arrow is drawn above the points. The 1e-9 gives equal logits an axis too.
    room = 0.14 * (heights[-1] - heights[0] + 1e-9)
    panels[0].set_ylim(heights[0] - room, heights[-1] + 1.6 * room)
    # The flat arrow points in the direction of most edits.
    forward = 1 if np.median(ends[:, 2]) >= np.median(ends[:, 0]) else -1
    middle = (widths[0] + widths[-1]) / 2
    reach = 0.35 * forward * (widths[-1] - widths[0])
    for axes in panels[: len(methods)]:
        axes.annotate(
            "",
            (middle + reach, heights[-1] + 0.8 * room),
            (middle - reach, heights[-1] + 0.8 * room),
            arrowprops={"arrowstyle": "-|>", "color": FLAT, "linewidth": 2.4},
        )
    size = STYLE["font.size"]
    target = theme.attribute(str(points["attribute"].iloc[0]))
    other = theme.attribute(str(points["other"].iloc[0]))
    figure.supxlabel(f"logit of {target} (target)", fontsize=size)
    figure.supylabel(f"logit of {other}", fontsize=size)
    return figure


def _numbers(records: Records, run_id: str) -> str:
    """'slope 0.12, crossed 93 %, right way 98 %'."""
    rows = records.rows[records.rows["run_id"] == run_id].drop_duplicates("metric")
    values = rows.set_index("metric")["value"]
    slope = values.get("scatter_slope", np.nan)
    crossed = values.get("scatter_crossed", np.nan)
    right = values.get("scatter_right_way", np.nan)
    return f"slope {slope:.2f}, crossed {100 * crossed:.0f} %, right way {100 * right:.0f} %"
