"""Where edits act: a heatmap a method and attribute, beside the mean picture (Cherepkov et al. 2021, Fig. 12)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from editbench.report.figures import Look, bare, new_figure
from editbench.report.load import Results
from editbench.report.tables import RANDOM
from editbench.walk.observation import Observed, observation_file, read_observed

OWN = ("locality_region",)  # curves over places in a list
MAP = "viridis"  # perceptually uniform, and readable with any colour vision
CAPTION = (
    "Mean over samples and strengths of the squared difference of edited and unedited pictures, summed over the "
    "colours (pictures in [-1, 1]); left the mean unedited picture. {scale} Below each map the share of its "
    "energy in the 10 % of pixels that have most. An asterisk: the common effect was not reached on a side."
)
SCALES = {
    False: "Every map has its own colours, from 0 (dark) to its largest value: where an edit acts.",
    True: "The maps of an attribute have the same colours: how much an edit changes.",
}


@dataclass(frozen=True)
class Heat:
    """heat (h, w) and mean (C, h, w) in [-1, 1] of one method and attribute; weak: the common effect was not reached;
    top: share of the energy in the 10 % of pixels with most."""

    heat: np.ndarray
    mean: np.ndarray
    weak: bool
    top: float


def heats(results: Results) -> dict[tuple[str, str], Heat]:
    """(attribute, method) -> heat, of the runs that have a heatmap; seeds of one method are added."""
    found: dict[tuple[str, str], list[tuple[Observed, float]]] = {}
    top = (
        results.rows[results.rows["metric"] == "locality_top"]
        .drop_duplicates("run_id")
        .set_index("run_id")["value"]
    )
    for run in results.runs[results.runs["status"] == "done"].to_dict("records"):
        if not observation_file(results.root / run["run_id"], "locality").exists():
            continue
        probe = read_observed(results.root / run["run_id"], "locality")
        if not probe.reason:
            share = float(top.get(run["run_id"], np.nan))
            found.setdefault((run["attribute"], run["label"]), []).append((probe, share))
    out = {}
    for key, several in found.items():
        energy = sum(probe.arrays["energy"].sum(0) for probe, _ in several)
        count = sum(float(probe.arrays["count"].sum()) for probe, _ in several)
        weak = any(
            not probe.meta[side]["reached"] for probe, _ in several for side in ("down", "up")
        )
        out[key] = Heat(
            energy / max(count, 1.0),
            several[0][0].arrays["mean"],
            weak,
            float(np.mean([share for _, share in several])),
        )
    return out


def drawings(
    results: Results, look: dict[str, Look]
) -> list[tuple[str, str, str, Callable[[], Figure]]]:
    """As `editbench.report._drawings`; none where no run has a heatmap."""
    found = heats(results)
    if not found:
        return []
    return [
        (
            "heatmaps" + "_shared" * shared,
            "Where edits act" + ", on one scale" * shared,
            CAPTION.format(scale=SCALES[shared]),
            partial(heatmap_figure, found, shared),
        )
        for shared in (False, True)
    ]


def heatmap_figure(found: dict[tuple[str, str], Heat], shared: bool = False) -> Figure:
    """A line an attribute: the mean picture, then a map a method. shared: one scale of colours a line, with its bar."""
    attributes = sorted({attribute for attribute, _ in found})
    methods = sorted(
        {method for _, method in found}, key=lambda name: (name.split(" ")[0] == RANDOM, name)
    )
    width = max(5.5, 1.5 * (1 + len(methods)) + 0.8 * shared)
    figure = new_figure(width, 0.5 + 1.75 * len(attributes))
    panels = figure.subplots(len(attributes), 1 + len(methods), squeeze=False)
    bare(panels)
    for line, attribute in zip(panels, attributes):
        mine = {
            method: found[attribute, method] for method in methods if (attribute, method) in found
        }
        most = max(float(one.heat.max()) for one in mine.values())
        picture = np.clip((next(iter(mine.values())).mean.transpose(1, 2, 0) + 1) / 2, 0, 1)
        line[0].imshow(
            picture if picture.shape[2] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1
        )
        line[0].set_ylabel(attribute.replace("_", " "))
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
    panels[0][0].set_title("mean", fontsize=8.5, loc="center")
    for axes, method in zip(panels[0][1:], methods):
        axes.set_title(method.replace("_", " "), fontsize=8.5, loc="center", wrap=True)
    return figure
