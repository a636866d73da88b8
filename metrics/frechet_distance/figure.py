"""Distance of edited images from real images, over strength and over effect.

Cherepkov et al. 2021, Fig. 7, 11, 14.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from editbench.figures.curves import (
    caption_of_groups,
    draw_pale,
    groups_of_attributes,
    share_limits,
)
from editbench.figures.drawing import Drawing, Records, with_methods
from editbench.figures.panels import STYLE
from editbench.figures.theme import INK, MethodStyle, Theme

KINDS = {
    "frechet_distance": "Fréchet distance",
    "fid": "FID",
    "kernel_distance": "kernel distance",
    "kid": "KID",
}
# Fields that distances in one figure must share.
COMPARED = ["variant", "network", "resize", "reference", "n", "effect"]
MOST_COLUMNS = 3  # of panels
# A side without effect ends at strength 0; its points then have share 0.
SMALLEST = 1e-12
PERFECT_DASH = (0, (4, 2, 1, 2))
LINES = (
    ". Lower is better. Dashed line: the unedited images. Dotted line: other real images (the floor "
    "at this n). {perfect}Bands: 95 % intervals. Compare only distances with the same n, network and "
    "reference. {share}"
)
# By the variant of the rows. Records of earlier versions have none; they are unmatched.
PERFECT = (
    "Dash-dotted line, one per method: other real images with the same share of the attribute as "
    "the edited images, which is what an edit without error would reach. "
)
SHARE = {
    "matched": "The real images have the same share of the attribute as the edited images, so the "
    "distance measures realism and not the edit itself. ",
    "unmatched": "The real images are not matched to the edited ones, so the distance also grows with "
    "the edit itself. ",
}
CAPTIONS = {
    "strength": "Distance between edited and real images, plotted against the strength of the edit, "
    "as a share of the strength at which the method reaches the common mean effect{lines}An open "
    "marker: the method did not reach this effect, and its axis ends at the strength of its largest "
    "effect. {name}.",
    "effect": "Distance between edited and real images, plotted against the mean change of the "
    "judge's log-odds, which is negative towards the other class{lines}An open marker: the method "
    "did not reach the common effect. {name}.",
}


def draw(records: Records, theme: Theme) -> list[Drawing]:
    """Figures of each distance that the runs have, over strength and over effect."""
    points = frechet_points(records)
    found = []
    # Matched distances come first on the page.
    both = set(points["variant"]) >= set(SHARE)
    for key, group in points.groupby(["kind", *COMPARED], sort=False):
        kind = str(key[0])
        fields: dict[str, Any] = dict(zip(COMPARED, key[1:]))
        alike = points[points["kind"] == kind]
        alike = alike[alike["variant"] == fields["variant"]]
        several = len(alike[COMPARED].drop_duplicates()) > 1
        aside = both and fields["variant"] == "unmatched" and kind in ("frechet_distance", "fid")
        title = KINDS[kind]
        if fields["variant"] == "matched":
            title += " at matched attribute shares"
        for axis in ("strength", "effect"):
            # Over strength, the kernel distance shows nothing beyond the figure over effect.
            if axis == "strength" and kind in ("kernel_distance", "kid"):
                continue
            name = f"{kind}_{axis}"
            if aside:
                name += "_unmatched"
            if several:
                name = f"{name}_{written(fields)}"
            lines = LINES.format(
                perfect=PERFECT if np.isfinite(group["perfect"]).any() else "",
                share=SHARE.get(fields["variant"], SHARE["unmatched"]),
            )
            caption = CAPTIONS[axis].format(lines=lines, name=f"{KINDS[kind]}, {written(fields)}")
            caption += caption_of_groups(set(group["method"]), theme)
            found.append(
                Drawing(
                    "".join(c if c.isalnum() or c in "_-" else "-" for c in name),
                    f"{title} over {axis}",
                    caption,
                    partial(frechet_figure, group, axis=axis, label=KINDS[kind]),
                    first=not aside,
                )
            )
    return found


def written(fields: dict) -> str:
    """The fields a distance depends on, as text: 'matched, judge@1c8e, none, n = 1000, ref =
    renders@07aa, effect = 0.25'."""
    return (
        f"{fields['variant'] or 'unmatched'}, {fields['network']}, {fields['resize']}, n = {fields['n']:g}, "
        f"ref = {fields['reference']}, effect = {fields['effect']:g}"
    )


def frechet_points(records: Records) -> pd.DataFrame:
    """One row per run, kind and strength.

    Returns:
        Columns run_id, method, attribute, kind, those of COMPARED, t (strength in steps), share (of
        the strength at the side's end), achieved (mean effect), value, low, high, zero, floor,
        perfect (distance of other real images with this share of the attribute, NaN if unknown),
        open (whether this is an end at which the effect was not reached).
    """
    columns = ["run_id", "kind", *COMPARED, "t", "share", "achieved", "value", "low", "high"]
    columns += ["zero", "floor", "perfect", "open"]
    rows = records.rows
    effects = rows[rows["metric"] == "achieved_effect"]
    distances = rows[rows["metric"].str.startswith(tuple(KINDS)) & (rows["network"] != "")]
    out = []
    for key, group in distances.groupby(["run_id", *COMPARED], sort=False):
        achieved = effects[effects["run_id"] == key[0]].set_index("x")["value"]
        for kind in KINDS:
            curve = group[(group["metric"] == kind) & np.isfinite(group["x"])].sort_values("x")
            if len(curve):
                points = curve_points(curve, group, achieved)
                names = ["run_id", *COMPARED]
                points[names] = pd.DataFrame([key] * len(points), points.index, names)
                out.append(points.assign(kind=kind))
    table = pd.DataFrame(columns=columns)
    if out:
        table = pd.concat(out)[columns]
    order = ["kind", *COMPARED, "attribute", "method", "t"]
    return with_methods(table, records.runs).sort_values(order, ignore_index=True)


def curve_points(curve: pd.DataFrame, group: pd.DataFrame, achieved: pd.Series) -> pd.DataFrame:
    """The points of one curve.

    Args:
        curve: rows of one distance over strength, in ascending order.
        group: all rows of that distance, its scalars among them.
        achieved: strength -> mean achieved effect.
    """
    kind = str(curve["metric"].iloc[0])
    t = curve["x"].to_numpy(np.float64)
    scalar = group[~np.isfinite(group["x"])].set_index("metric")["value"]
    perfect = group[group["metric"] == f"{kind}_perfect"].set_index("x")["value"]
    missed = np.zeros(len(t), bool)
    for side, end in (("up", t.max()), ("down", t.min())):
        if not np.isfinite(scalar.get(f"{kind}_{side}", np.nan)):
            missed |= t == end
    scale = np.where(t >= 0, max(t.max(), SMALLEST), max(-t.min(), SMALLEST))
    return pd.DataFrame(
        {
            "t": t,
            "share": t / scale,
            "achieved": achieved.reindex(t).to_numpy(),
            "value": curve["value"].to_numpy(),
            "low": curve["low"].to_numpy(),
            "high": curve["high"].to_numpy(),
            "zero": scalar.get(f"{kind}_zero", np.nan),
            "floor": scalar.get(f"{kind}_floor", np.nan),
            "perfect": perfect.reindex(t).to_numpy(),
            "open": missed,
        }
    )


def frechet_figure(points: pd.DataFrame, theme: Theme, axis: str, label: str) -> Figure:
    """One panel per attribute, along the strengths.

    Args:
        points: rows of `frechet_points` of one kind.
        theme: of the methods.
        axis: 'strength' (x is the share of the end) or 'effect'.
        label: of the vertical axis.
    """
    attributes = theme.order(points["attribute"])
    figure, groups = groups_of_attributes(points, theme, MOST_COLUMNS, (3.6, 2.9), 0.7, label)
    x = "share" if axis == "strength" else "achieved"
    for group in groups:
        for axes, attribute in zip(group.panels, attributes):
            here = points[points["attribute"] == attribute]
            pale = here[here["method"].isin(group.pale)]
            draw_pale(axes, [(one[x], one["value"]) for _, one in pale.groupby("run_id")])
            for method in group.methods:
                mine = here[here["method"] == method]
                for _, one in mine.groupby("run_id"):  # of one seed each
                    draw_curve(axes, one, x, theme[method])
            for level, dash in (("zero", (0, (5, 3))), ("floor", (0, (1, 2)))):
                if np.isfinite(here[level]).any():
                    axes.axhline(
                        float(here[level].dropna().iloc[0]),
                        color=INK,
                        linewidth=0.9,
                        linestyle=dash,
                        alpha=0.6,
                    )
        if (points["value"].dropna() >= 0).all():
            group.panels[0].set_ylim(bottom=0)
    share_limits(groups)
    figure.supxlabel(
        "relative strength" if axis == "strength" else "mean achieved effect, σ of the target",
        fontsize=STYLE["font.size"],
    )
    return figure


def draw_curve(axes: Axes, one: pd.DataFrame, x: str, style: MethodStyle) -> None:
    """One distance with its band, and the distance of a perfect edit.

    Args:
        axes: to draw on.
        one: rows of `frechet_points` of one run and kind.
        x: column of the horizontal axis.
        style: of the method.
    """
    axes.fill_between(one[x], one["low"], one["high"], color=style.colour, alpha=0.14, linewidth=0)
    axes.plot(one[x], one["value"], color=style.colour, linewidth=1.5, linestyle=style.dash)
    axes.plot(one[x], one["perfect"], color=INK, linewidth=0.9, linestyle=PERFECT_DASH, alpha=0.6)
    for is_open, part in one.groupby("open"):
        axes.plot(
            part[x],
            part["value"],
            linestyle="none",
            marker=style.marker,
            color=style.colour,
            markersize=4.2,
            markerfacecolor="none" if is_open else style.colour,
            markeredgewidth=1.0 if is_open else 0,
        )
