"""Dependency by attribute: what each edit takes along, a panel a target (editbench.metrics.dependency_matrix.metric)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from editbench.report.figures import Look, new_figure, order_methods
from editbench.report.load import Results
from editbench.report.tables import FEWEST

CAPTION = (
    "Mean change of every other attribute at matched effect on the target (the panel), in σ; darker is more. "
    f"Cells of fewer than {FEWEST} starts, or of runs that are not done, are empty."
)
Drawing = tuple[str, str, str, Callable[[], Figure]]


def drawings(results: Results, look: dict[str, Look]) -> list[Drawing]:
    """(file name, title, caption, function that draws); none where no run has the numbers."""
    found = cells(results)
    if found.empty:
        return []
    return [("dependency_matrix", "What an edit takes along", CAPTION, partial(figure, found))]


def cells(results: Results) -> pd.DataFrame:
    """One row a run and other attribute: attribute (the target), method, other, value, n."""
    rows = results.rows[
        results.rows["metric"].str.startswith("dependency_on[") & (results.rows["n"] >= FEWEST)
    ]
    rows = rows.assign(other=rows["metric"].str.slice(len("dependency_on["), -1))
    runs = results.runs[["run_id", "label", "attribute"]].rename(columns={"label": "method"})
    return rows.merge(runs, on="run_id")[["attribute", "method", "other", "value", "n"]]


def figure(found: pd.DataFrame) -> Figure:
    """Methods down, other attributes across, one colour scale for all panels."""
    targets, methods = sorted(set(found["attribute"])), order_methods(found)
    columns = min(len(targets), 3 if max(map(len, methods)) < 40 else 1)
    lines = -(-len(targets) // columns)
    names = sorted(set(found["other"]))
    names_width = 0.075 * max(map(len, methods))
    drawing = new_figure(
        names_width + columns * (0.55 * len(names) + 0.4), 0.6 + lines * (0.3 * len(methods) + 1.0)
    )
    panels = drawing.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    top = float(found["value"].quantile(0.98)) or 1.0
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
                dark = value > 0.55 * top
                axes.text(
                    column,
                    row,
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color="#ffffff" if dark else "#1a1d21",
                )
        axes.set_xticks(
            range(len(others)),
            [name.replace("_", " ") for name in others],
            rotation=35,
            ha="right",
            rotation_mode="anchor",
        )
        axes.set_yticks(range(len(methods)), methods)
        axes.grid(False)
        axes.set_title(targets[place].replace("_", " "))
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, top), "cividis_r")
    drawing.colorbar(
        scale, ax=panels[: len(targets)].tolist(), label="dependency, σ", shrink=0.8, fraction=0.03
    )
    return drawing
