"""Control against disentanglement (Khrulkov et al. 2021, Fig. 4), the mean of D over the range that
all methods share, and images along the walks (Fig. 5, 6, 8, 9 and 13)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from editbench.base.errors import EditbenchError
from editbench.figures.curves import (
    caption_of_groups,
    draw_pale,
    groups_of_attributes,
    share_limits,
)
from editbench.figures.drawing import Drawing, Records, with_methods
from editbench.figures.legend import put_legend
from editbench.figures.panels import STYLE, bare, name_ticks, new_figure, show_picture
from editbench.figures.theme import Theme, order_methods
from editbench.stats.first_crossing import area

LEAST = 0.1  # methods with less control than this are ignored for the common range
MOST_COLUMNS = 4  # of panels
MOST_STARTS = 2  # of each attribute whose paths are drawn
SIDE = 0.8  # inches of a picture of a path
CAPTIONS = {
    "cd": "Disentanglement D (normalised entropy of the other attributes; lower is better) against "
    "control C (share of starts that have the target class; more to the right), step by step along "
    "the walk. Bands: 95 % intervals of D at fixed C. Diverged walks count as not controlled.",
    "cd_area": "Mean of D over the range of C from 0 to the largest value that every method reaches "
    "on the attribute; this value stands under the attribute's name. Floors and methods below "
    f"C = {LEAST:g} do not limit the range, and have a mark only if they cover it. Lower is better.",
    "cd_paths": "The same starts along the walks of every method, at the step given above each "
    "image; a step has the same length in all methods. An underlined image has the target class, "
    "according to the judge. ",
}


def draw(records: Records, theme: Theme) -> list[Drawing]:
    """The figures of curves and means, and one of paths for each attribute; none without curves."""
    curves = cd_curves(records)
    if curves.empty:
        return []
    found = [
        Drawing(
            "cd",
            "Control and disentanglement",
            CAPTIONS["cd"] + caption_of_groups(set(curves["method"]), theme),
            partial(cd_figure, curves, bands(records)),
            first=True,
        )
    ]
    means = common_means(curves)
    if means["mean"].notna().any():
        found.append(
            Drawing(
                "cd_area",
                "Disentanglement over the common range of control",
                CAPTIONS["cd_area"],
                partial(mean_figure, means),
                first=True,
            )
        )
    for attribute, kept in kept_paths(records).items():
        found.append(
            Drawing(
                f"cd_paths_{attribute}",
                f"Paths: {theme.attribute(attribute)}",
                CAPTIONS["cd_paths"] + f"{theme.attribute(attribute)}.",
                partial(paths_figure, kept),
            )
        )
    return found


class WalkImages(NamedTuple):
    """Images along one walk. A short walk repeats its last step.

    Attributes:
        images: (c, C, H, W) uint8.
        steps: (c,) step of each image.
        crossed: (c,) whether the judge assigns the target class to the image.
    """

    images: np.ndarray
    steps: np.ndarray
    crossed: np.ndarray


def kept_paths(records: Records) -> dict[str, dict[int, dict[str, WalkImages]]]:
    """Images along the walks, of the starts that most methods have.

    Returns:
        attribute -> start -> method -> images. If a method has several seeds, its first run is
        used.
    """
    runs = records.runs[records.runs["status"] == "done"]
    found: dict[str, dict[int, dict[str, WalkImages]]] = {}
    for run in runs.to_dict("records"):
        try:
            arrays = records.strips(run["run_id"])
        except EditbenchError:
            continue  # the report names the damaged file where it shows its strips
        if not arrays:
            continue
        starts = found.setdefault(run["attribute"], {})
        for k, start in enumerate(np.asarray(arrays["starts"]).tolist()):
            path = WalkImages(*(np.asarray(arrays[name][k]) for name in WalkImages._fields))
            starts.setdefault(int(start), {}).setdefault(str(run["label"]), path)
    chosen = {}
    for attribute, by_start in found.items():
        # The inner sort breaks ties by the start's number.
        most = sorted(sorted(by_start), key=lambda start: -len(by_start[start]))[:MOST_STARTS]
        chosen[attribute] = {start: by_start[start] for start in sorted(most)}
    return chosen


def paths_figure(kept: dict[int, dict[str, WalkImages]], theme: Theme) -> Figure:
    """One row per start and method, one column per step.

    Args:
        kept: start -> method -> images, see `kept_paths`.
        theme: of the methods, whose colours their names have.
    """
    methods = order_methods((method for by in kept.values() for method in by), theme)
    rows = [(start, method) for start, by in kept.items() for method in methods if method in by]
    columns = max(len(by[method].steps) for by in kept.values() for method in by)
    figure = new_figure(1.6 + SIDE * columns, 0.2 + (SIDE + 0.16) * len(rows))
    panels = figure.subplots(len(rows), columns, squeeze=False)
    bare(panels)
    for line, (start, method) in enumerate(rows):
        path = kept[start][method]
        for column in range(columns):
            axes = panels[line, column]
            repeated = column > 0 and path.steps[column] == path.steps[column - 1]
            if repeated:
                axes.set_visible(False)
                continue
            picture = path.images[column].transpose(1, 2, 0)
            show_picture(axes, picture, 255)
            axes.set_title(f"{int(path.steps[column])}", fontsize=7, fontweight="normal", pad=2)
            if path.crossed[column]:
                axes.spines["bottom"].set_visible(True)
                axes.spines["bottom"].set_linewidth(2)
                axes.spines["bottom"].set_color(theme[method].colour)
        panels[line, 0].set_ylabel(
            theme.method(method),
            rotation=0,
            ha="right",
            va="center",
            color=theme[method].colour,
            fontsize=8,
        )
    return figure


def cd_curves(records: Records) -> pd.DataFrame:
    """One row per run and step: attribute, method, floor, step, control, entropy.

    Runs without numbers are left out.
    """
    rows = records.rows
    rows = rows[rows["metric"].isin(["cd_control", "cd_entropy"]) & np.isfinite(rows["value"])]
    wide = rows.pivot_table(
        index=["run_id", "x"], columns="metric", values="value", aggfunc="first"
    ).reset_index()
    wide = wide.reindex(columns=["run_id", "x", "cd_control", "cd_entropy"]).dropna()
    wide = wide.rename(columns={"x": "step", "cd_control": "control", "cd_entropy": "entropy"})
    found = with_methods(wide, records.runs, "floor")
    return found.sort_values(["attribute", "method", "step"], ignore_index=True)


def bands(records: Records) -> pd.DataFrame:
    """Rows of D at levels of control, with method and attribute."""
    rows = records.rows
    rows = rows[(rows["metric"] == "cd_entropy_at") & np.isfinite(rows["value"])]
    return with_methods(rows, records.runs).sort_values("x")


def common_means(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean of D over the range of control that all methods reach on an attribute.

    Returns:
        One row per attribute and method: attribute, method, common (end of the range), mean (area
        under D(C) over the range, divided by its length; NaN if the method does not reach the end).
    """
    rows = []
    for attribute, group in curves.groupby("attribute"):
        most = group.groupby("method")["control"].max()
        floor = set(group.loc[group["floor"], "method"])
        setting = most[(most >= LEAST) & ~most.index.isin(floor)]
        common = float(setting.min()) if len(setting) else np.nan
        for method, walk in group.groupby("method"):
            value = np.nan
            if np.isfinite(common) and most[method] >= common:
                control = walk["control"].to_numpy()
                value = float(area(control, walk["entropy"].to_numpy(), common))
            rows.append(
                {
                    "attribute": attribute,
                    "method": method,
                    "common": common,
                    "mean": value / common,
                }
            )
    return pd.DataFrame(rows, columns=["attribute", "method", "common", "mean"])


def cd_figure(curves: pd.DataFrame, band: pd.DataFrame, theme: Theme) -> Figure:
    """One panel per attribute: D against C along the steps (Khrulkov et al. 2021, Fig. 4).

    Args:
        curves: rows of `cd_curves`.
        band: rows of `bands`, intervals of D at fixed C.
        theme: of the methods and attributes.
    """
    attributes = theme.order(curves["attribute"])
    figure, groups = groups_of_attributes(curves, theme, MOST_COLUMNS, (3.05, 2.6), 0.7)
    for group in groups:
        for axes, attribute in zip(group.panels, attributes):
            here = curves[curves["attribute"] == attribute]
            pale = here[here["method"].isin(group.pale)].groupby("method")
            draw_pale(axes, [(walk["control"], walk["entropy"]) for _, walk in pale])
            for method, walk in here[here["method"].isin(group.methods)].groupby("method"):
                colour, marker = theme[str(method)][:2]
                rows = band[(band["attribute"] == attribute) & (band["method"] == method)]
                axes.fill_between(
                    rows["x"], rows["low"], rows["high"], color=colour, alpha=0.14, linewidth=0
                )
                axes.plot(
                    walk["control"],
                    walk["entropy"],
                    color=colour,
                    linewidth=1.5,
                    linestyle=theme[str(method)].dash,
                )
                # The marker is at the last step, which need not have the most control.
                axes.plot(
                    walk["control"].iloc[-1],
                    walk["entropy"].iloc[-1],
                    marker=marker,
                    color=colour,
                    markersize=4.5,
                    markeredgewidth=0,
                )
        group.panels[0].set_xlim(0, 1.02)  # so that markers at full control are not cut off
        group.panels[0].set_ylim(bottom=0)
    share_limits(groups)
    size = STYLE["font.size"]
    figure.supxlabel("control C", fontsize=size)
    figure.supylabel("disentanglement D (entropy)", fontsize=size)
    return figure


def mean_figure(means: pd.DataFrame, theme: Theme) -> Figure:
    """The mean of D over the common range, one point per method and attribute.

    Args:
        means: rows of `common_means`; a method without a mean has no point.
        theme: of the methods and attributes.
    """
    attributes = theme.order(means["attribute"])
    methods = order_methods(means["method"], theme)
    width = 1.2 + len(attributes) * (0.55 + 0.16 * len(methods))
    # In a paper's column the names are slanted, which takes room from the panel.
    height = 3.4 if theme.width is None else 4.9
    figure = new_figure(max(5.5, min(12.5, width)), height)
    axes = figure.add_subplot()
    # Points of one attribute stand side by side, around its tick.
    step = min(0.13, 0.8 / max(len(methods), 1))
    for position, method in enumerate(methods):
        mine = means[(means["method"] == method) & np.isfinite(means["mean"])]
        offset = (position - (len(methods) - 1) / 2) * step
        x = [attributes.index(name) + offset for name in mine["attribute"]]
        axes.plot(
            x,
            mine["mean"],
            linestyle="none",
            marker=theme[method].marker,
            color=theme[method].colour,
            markersize=6,
            markeredgewidth=0,
        )
    ends = means.groupby("attribute")["common"].first()
    names = []
    for name in attributes:
        reach = f"C ≤ {ends[name]:.2f}" if np.isfinite(ends[name]) else "no control"
        names.append(f"{theme.attribute(name)}\n{reach}")
    name_ticks(axes, names, theme)
    axes.set_xlim(-0.5, len(attributes) - 0.5)
    # If every mean is 0, an axis that ends at its largest value would have no length.
    axes.set_ylim(0, 1.12 * means["mean"].max() or 1)
    axes.grid(False, axis="x")
    axes.set_ylabel("mean D")
    put_legend(figure, methods, theme, line=False)
    return figure
