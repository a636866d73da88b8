"""Distance of edited from real pictures over strength and over effect (Cherepkov et al. 2021, Fig. 7, 11, 14)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from editbench.report.figures import (
    BANDED,
    INK,
    STYLE,
    Look,
    new_figure,
    order_methods,
    panel_grid,
    put_legend,
)
from editbench.report.load import Results

KINDS = {
    "frechet_distance": "Fréchet distance",
    "fid": "FID",
    "kernel_distance": "kernel distance",
    "kid": "KID",
}
OWN = (*KINDS, "achieved_effect")
LINES = (
    "; the dashed line is that of the unedited pictures, the dotted one that of other real pictures (the floor at "
    "this n). Bands are 95 % intervals, drawn for up to 8 methods. Lower is better; only equal n, network and "
    "reference compare. "
)
CAPTIONS = {
    "strength": "Distance of edited pictures from real ones{lines}The strength t of a method is told as a share of the "
    "one at its end, which has the common mean effect; an open mark: the effect was not reached, and the "
    "end is the largest that was seen. {name}.",
    "effect": "Distance of edited pictures from real ones against the mean change of the judge's log-odds, negative "
    "towards the other side{lines}An open mark: the common effect was not reached. {name}.",
}
Drawing = tuple[str, str, str, Callable[[], Figure]]


def drawings(results: Results, look: dict[str, Look]) -> list[Drawing]:
    """(file name, title, caption, function that draws); none where no run has the curves."""
    found: list[Drawing] = []
    points = frechet_points(results)
    for key, group in points.groupby(["kind", "bracket"], sort=False):
        kind, bracket = map(str, key)
        for axis in ("strength", "effect"):
            if axis == "strength" and kind in ("kernel_distance", "kid"):
                continue  # the same story as over the effect
            several = points.loc[points["kind"] == kind, "bracket"].nunique() > 1
            file = f"{kind}_{axis}" + (f"_{bracket}" if several else "")
            file = "".join(c if c.isalnum() or c in "_-" else "-" for c in file)
            caption = CAPTIONS[axis].format(
                lines=LINES, name=f"{KINDS[kind]} {bracket.replace(',', ', ')}"
            )
            found.append(
                (
                    file,
                    f"{KINDS[kind]} over {axis}",
                    caption,
                    partial(frechet_figure, group, look, axis, KINDS[kind]),
                )
            )
    return found


def frechet_points(results: Results) -> pd.DataFrame:
    """One row a run, kind and strength: kind, bracket, method, attribute, t, share (of the side's end), effect, value,
    low, high, zero, floor, open (whether this is an end whose effect was not reached)."""
    rows = results.rows[results.rows["metric"].str.startswith(OWN)].copy()
    rows["base"] = rows["metric"].str.split("[").str[0]
    rows["bracket"] = rows["metric"].str.extract(r"(\[.*)", expand=False).fillna("")
    out = []
    for (run, bracket), group in rows[rows["bracket"] != ""].groupby(
        ["run_id", "bracket"], sort=False
    ):
        effects = rows[(rows["run_id"] == run) & (rows["base"] == "achieved_effect")].set_index(
            "x"
        )["value"]
        for kind in KINDS:
            curve = group[(group["base"] == kind) & np.isfinite(group["x"])].sort_values("x")
            if curve.empty:
                continue
            t = curve["x"].to_numpy(np.float64)
            scalar = group.drop_duplicates("base").set_index("base")["value"]
            ends = {"up": t.max(), "down": t.min()}
            missed = [
                t == place
                for side, place in ends.items()
                if not np.isfinite(scalar.get(f"{kind}_{side}", np.nan))
            ]
            scale = np.where(t >= 0, max(ends["up"], 1e-12), max(-ends["down"], 1e-12))
            out.append(
                pd.DataFrame(
                    {
                        "run_id": run,
                        "kind": kind,
                        "bracket": bracket,
                        "t": t,
                        "share": t / scale,
                        "effect": effects.reindex(t).to_numpy(),
                        "value": curve["value"].to_numpy(),
                        "low": curve["low"].to_numpy(),
                        "high": curve["high"].to_numpy(),
                        "zero": scalar.get(f"{kind}_zero", np.nan),
                        "floor": scalar.get(f"{kind}_floor", np.nan),
                        "open": np.any(missed, 0) if missed else np.zeros(len(t), bool),
                    }
                )
            )
    runs = results.runs[["run_id", "label", "attribute"]].rename(columns={"label": "method"})
    columns = [
        "run_id",
        "kind",
        "bracket",
        "t",
        "share",
        "effect",
        "value",
        "low",
        "high",
        "zero",
        "floor",
        "open",
    ]
    table = pd.concat(out) if out else pd.DataFrame(columns=columns)
    return table.merge(runs, on="run_id").sort_values(
        ["kind", "bracket", "attribute", "method", "t"], ignore_index=True
    )


def frechet_figure(points: pd.DataFrame, look: dict[str, Look], axis: str, label: str) -> Figure:
    """A panel an attribute; x: 'share' for axis 'strength', 'effect' for axis 'effect', along the strengths."""
    attributes, methods = sorted(set(points["attribute"])), order_methods(points)
    columns = min(len(attributes), 3)
    lines = -(-len(attributes) // columns)
    figure = new_figure(max(5.5, 3.6 * columns), 0.7 + 2.9 * lines)
    panels = panel_grid(figure, len(attributes), columns)
    x = "share" if axis == "strength" else "effect"
    for place, (axes, attribute) in enumerate(zip(panels, attributes)):
        here = points[points["attribute"] == attribute]
        for method in methods:
            mine, (colour, marker, _) = here[here["method"] == method], look[method]
            for _, one in mine.groupby("run_id"):  # of one seed each
                if len(methods) <= BANDED:
                    axes.fill_between(
                        one[x], one["low"], one["high"], color=colour, alpha=0.14, linewidth=0
                    )
                axes.plot(
                    one[x], one["value"], color=colour, linewidth=1.5, linestyle=look[method].dash
                )
                for is_open, part in one.groupby("open"):
                    axes.plot(
                        part[x],
                        part["value"],
                        linestyle="none",
                        marker=marker,
                        color=colour,
                        markersize=4.2,
                        markerfacecolor="none" if is_open else colour,
                        markeredgewidth=1.0 if is_open else 0,
                    )
        for level, dash in (("zero", (0, (5, 3))), ("floor", (0, (1, 2)))):
            if np.isfinite(here[level]).any():
                axes.axhline(
                    float(here[level].dropna().iloc[0]),
                    color=INK,
                    linewidth=0.9,
                    linestyle=dash,
                    alpha=0.6,
                )
        axes.set_title(attribute.replace("_", " "))
        axes.tick_params(labelbottom=place + columns >= len(attributes))
        if place % columns == 0:
            axes.set_ylabel(label)
    if (points["value"].dropna() >= 0).all():
        panels[0].set_ylim(bottom=0)
    figure.supxlabel(
        "strength, share of the end"
        if axis == "strength"
        else "mean achieved effect, σ of the target",
        fontsize=STYLE["font.size"],
    )
    put_legend(figure, methods, look)
    return figure
