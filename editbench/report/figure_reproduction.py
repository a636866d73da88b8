"""Weight shifts and the best that a latent shift makes of them, as pictures (Cherepkov et al. 2021, Fig. 8 and 16)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from editbench.report.figures import Look, bare, new_figure
from editbench.report.load import Results
from editbench.walk.observation import observation_file, read_observed

NAMES = {
    "z": "shift in Z",
    "w": "shift in W",
    "w_plus": "shift in W+",
    "activation": "shift of the\nactivation",
}
GAP = 2  # pixels between pictures
CAPTION = (
    "Lines: samples, the same under the weight shift of a method, and under the one shift of a latent space "
    "that comes nearest to it over all samples. Below each space: what is left of the squared difference (1: as "
    "much as without any shift, 0: nothing). In brackets: the same optimiser did not find a shift that was "
    "planted in this space, so that its number says nothing about what can be reached."
)


@dataclass(frozen=True)
class Reproduced:
    """lines: name -> pictures (k, C, h, w) uint8; rho: space -> (value, whether its control was passed)."""

    lines: dict[str, np.ndarray]
    rho: dict[str, tuple[float, bool]]


def reproduced(results: Results) -> dict[str, dict[str, Reproduced]]:
    """attribute -> method -> its pictures, of the first seed that has some."""
    out: dict[str, dict[str, Reproduced]] = {}
    for run in results.runs[results.runs["status"] == "done"].to_dict("records"):
        folder, there = results.root / run["run_id"], out.get(run["attribute"], {})
        if run["label"] in there or not observation_file(folder, "latent_reproduction").exists():
            continue
        probe = read_observed(folder, "latent_reproduction")
        if probe.reason or "pictures" not in probe.arrays:
            continue
        rows = (
            results.rows[results.rows["run_id"] == run["run_id"]]
            .drop_duplicates("metric")
            .set_index("metric")
        )
        rho = {}
        for space in probe.meta["spaces"]:
            if (name := f"reproduction_{space}") in rows.index:
                rho[space] = (
                    float(rows.loc[name, "value"]),
                    "optimiser failed" not in str(rows.loc[name, "note"]),
                )
        lines = dict(zip(probe.meta["panels"], probe.arrays["pictures"]))
        out.setdefault(run["attribute"], {})[run["label"]] = Reproduced(lines, rho)
    return out


def drawings(
    results: Results, look: dict[str, Look]
) -> list[tuple[str, str, str, Callable[[], Figure]]]:
    """As `editbench.report._drawings`; none where no run has such pictures."""
    return [
        (
            f"reproduction_{attribute}",
            f"Weight shifts by latent shifts, {attribute.replace('_', ' ')}",
            CAPTION,
            partial(reproduction_figure, methods),
        )
        for attribute, methods in sorted(reproduced(results).items())
    ]


def reproduction_figure(methods: dict[str, Reproduced]) -> Figure:
    """A column a method, a line each of start, weight shift and spaces."""
    names = list(dict.fromkeys(name for one in methods.values() for name in one.lines))
    pictures = max(len(next(iter(one.lines.values()))) for one in methods.values())
    figure = new_figure(max(5.5, 0.9 + 0.62 * pictures * len(methods)), 0.4 + 0.85 * len(names))
    panels = figure.subplots(len(names), len(methods), squeeze=False)
    bare(panels)
    for column, (method, one) in enumerate(sorted(methods.items())):
        panels[0][column].set_title(method.replace("_", " "), fontsize=8.5, loc="center")
        for line, name in enumerate(names):
            axes = panels[line][column]
            if column == 0:
                axes.set_ylabel(
                    NAMES.get(name, name), fontsize=8.5, rotation=0, ha="right", va="center"
                )
            if name not in one.lines:
                continue
            strip = side_by_side(one.lines[name])
            axes.imshow(
                strip if strip.shape[2] == 3 else strip[..., 0], cmap="gray", vmin=0, vmax=255
            )
            if name in one.rho:
                value, sound = one.rho[name]
                axes.set_xlabel(f"{value:.2f}" if sound else f"({value:.2f})", fontsize=8.5)
    return figure


def side_by_side(pictures: np.ndarray) -> np.ndarray:
    """(k, C, h, w) uint8 -> (h, k w + gaps, C), white between."""
    padded = np.pad(pictures, ((0, 0), (0, 0), (0, 0), (0, GAP)), constant_values=255)
    return np.concatenate(list(padded.transpose(0, 2, 3, 1)), 1)[:, :-GAP]
