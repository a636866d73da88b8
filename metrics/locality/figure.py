"""Where edits act: one heatmap per method and attribute, next to the mean image (Cherepkov et al.
2021, Fig. 12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from editbench.figures.drawing import Drawing, Records
from editbench.figures.panels import bare, new_figure, show_picture
from editbench.figures.theme import Theme, order_methods
from editbench.walk.observed import Observed

OBSERVATION = "locality"
MAP = "viridis"  # perceptually uniform, and readable with any colour vision
SIDE = 1.0  # inches; side of a map at screen size if maps are stacked vertically
CAPTION = (
    "Squared difference between edited and unedited images (range [-1, 1]), summed over the colour "
    "channels, mean over samples and strengths. Left: the mean unedited image. {scale} Below each "
    "map: the share of its energy in the 10 % of pixels with the largest values. An asterisk: the "
    "common effect was not reached in one of the two directions."
)
SCALES = {
    False: "Each map has its own colour scale, from 0 (dark) to its maximum: where the edit acts.",
    True: "All maps of an attribute share one colour scale: how much the edit changes.",
}


@dataclass(frozen=True)
class Heat:
    """The map of one method and attribute.

    Attributes:
        heat: (h, w) mean squared difference.
        mean: (C, h, w) mean unedited image, in [-1, 1].
        weak: whether the common effect was not reached in one of the two directions.
        top: share of the energy in the 10 % of pixels with the most energy; NaN if unknown.
    """

    heat: np.ndarray
    mean: np.ndarray
    weak: bool
    top: float


def heats(records: Records) -> dict[tuple[str, str], Heat]:
    """(attribute, method) -> map, over all seeds; methods without a map are left out."""
    rows = records.rows[records.rows["metric"] == "locality_top"].drop_duplicates("run_id")
    top = rows.set_index("run_id")["value"]
    found: dict[tuple[str, str], list[tuple[Observed, float]]] = {}
    for run in records.runs[records.runs["status"] == "done"].to_dict("records"):
        # A row for several seeds has their common share, under its own id.
        share = float(top.get(run["run_id"], np.nan))
        for run_id in run["run_ids"]:
            seen = records.observation(run_id, OBSERVATION)
            if seen is not None and not seen.reason:
                found.setdefault((run["attribute"], run["label"]), []).append((seen, share))
    return {key: mean_heat(several) for key, several in found.items()}


def mean_heat(several: Sequence[tuple[Observed, float]]) -> Heat:
    """The map over several seeds.

    Args:
        several: for each seed, the observation's result and `Heat.top`.
    """
    seeds = [seen for seen, _ in several]
    # Sums over blocks of samples and over seeds; the mean is taken once, at the end.
    energy = sum(seen.arrays["energy"].sum(0) for seen in seeds)
    count = sum(float(seen.arrays["count"].sum()) for seen in seeds)
    weak = not all(seen.meta[side]["reached"] for seen in seeds for side in ("down", "up"))
    top = float(np.mean([share for _, share in several]))
    return Heat(energy / max(count, 1.0), seeds[0].arrays["mean"], weak, top)


def draw(records: Records, theme: Theme) -> list[Drawing]:
    """The maps, once with separate scales and once with a common one; none if no run has a map."""
    found = heats(records)
    if not found:
        return []
    return [
        Drawing(
            "heatmaps",
            "Where edits act",
            CAPTION.format(scale=SCALES[False]),
            partial(heatmap_figure, found, shared=False),
            first=True,
        ),
        Drawing(
            "heatmaps_shared",
            "Where edits act, on a common scale",
            CAPTION.format(scale=SCALES[True]),
            partial(heatmap_figure, found, shared=True),
            first=True,
        ),
    ]


def heatmap_figure(found: dict[tuple[str, str], Heat], theme: Theme, shared: bool) -> Figure:
    """One line per attribute: the mean image, then one map per method.

    Args:
        found: (attribute, method) -> map.
        theme: of the methods, with their order and that of the attributes.
        shared: whether the maps of a line share one colour scale, with its bar.
    """
    attributes = theme.order(attribute for attribute, _ in found)
    methods = order_methods((method for _, method in found), theme)
    count = 1 + len(methods)
    # In a paper's column the maps of an attribute are stacked vertically.
    tall = theme.panels_per_row(count, count, SIDE) < count
    if tall:
        figure = new_figure(1.2 + SIDE * len(attributes), 0.5 + SIDE * count)
        panels = figure.subplots(count, len(attributes), squeeze=False).T
    else:
        width = max(5.5, 1.5 * count + 0.8 * shared)
        figure = new_figure(width, 0.5 + 1.75 * len(attributes))
        panels = figure.subplots(len(attributes), count, squeeze=False)
    bare(panels)
    for line, attribute in zip(panels, attributes):
        mine = {}
        for method in methods:
            if (attribute, method) in found:
                mine[method] = found[attribute, method]
        most = max(float(one.heat.max()) for one in mine.values())
        # All methods have the same unedited images, so the mean of any method can be used.
        mean = next(iter(mine.values())).mean.transpose(1, 2, 0)
        show_picture(line[0], np.clip((mean + 1) / 2, 0, 1), 1)
        if tall:
            line[0].set_title(theme.attribute(attribute), fontsize=8.5, loc="center")
        else:
            line[0].set_ylabel(theme.attribute(attribute))
        drawn = None
        for axes, method in zip(line[1:], methods):
            if method not in mine:
                axes.text(
                    0.5,
                    0.5,
                    "no map",
                    transform=axes.transAxes,
                    ha="center",
                    va="center",
                    fontsize=8,
                    alpha=0.7,
                )
                continue
            one = mine[method]
            drawn = axes.imshow(one.heat, cmap=MAP, vmin=0, vmax=most if shared else None)
            if np.isfinite(one.top):
                axes.set_xlabel(f"{one.top:.2f}" + "*" * one.weak, fontsize=8.5)
        if shared and drawn is not None:
            figure.colorbar(drawn, ax=line.tolist(), shrink=0.8, pad=0.01)
    for axes, name in zip(panels[0], ["mean", *map(theme.method, methods)]):
        if tall:
            axes.set_ylabel(name.replace(" (", "\n("), fontsize=8.5, rotation=0, ha="right")
        else:
            axes.set_title(name, fontsize=8.5, loc="center", wrap=True)
    return figure
