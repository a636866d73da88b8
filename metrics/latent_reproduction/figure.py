"""Images of weight shifts and of the latent shifts that reproduce them best.

Cherepkov et al. 2021, Fig. 8 and 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from editbench.figures.drawing import Drawing, Records
from editbench.figures.panels import bare, new_figure, show_picture
from editbench.figures.theme import Theme, order_methods

OBSERVATION = "latent_reproduction"
NAMES = {
    "z": "shift in Z",
    "w": "shift in W",
    "w_plus": "shift in W+",
    "activation": "shift of the\nactivation",
}
GAP = 2  # pixels between pictures
CAPTION = (
    "Rows: unedited samples, the same samples under the weight shift of the method, and under the "
    "single shift of each latent space that is closest to it over all samples. Below each space: the "
    "share of the squared difference that remains (1: as without a shift, 0: none). In brackets: the "
    "optimiser did not recover a shift that was planted in this space, so the number does not show "
    "what this space can reproduce."
)


@dataclass(frozen=True)
class Reproduced:
    """Images and numbers of one method.

    Attributes:
        lines: name -> images (k, C, h, w) uint8.
        rho: space -> rho, and whether its control was passed.
    """

    lines: dict[str, np.ndarray]
    rho: dict[str, tuple[float, bool]]


def reproduced(records: Records) -> dict[str, dict[str, Reproduced]]:
    """attribute -> method -> its images, of the first seed that has any."""
    out: dict[str, dict[str, Reproduced]] = {}
    for run in records.runs[records.runs["status"] == "done"].to_dict("records"):
        if run["label"] in out.get(run["attribute"], {}):
            continue
        seen = records.observation(run["run_id"], OBSERVATION)
        if seen is None or seen.reason or "pictures" not in seen.arrays:
            continue
        lines = dict(zip(seen.meta["panels"], seen.arrays["pictures"]))
        rho = numbers(records, run["run_id"], seen.meta["spaces"])
        out.setdefault(run["attribute"], {})[run["label"]] = Reproduced(lines, rho)
    return out


def numbers(records: Records, run_id: str, spaces: list[str]) -> dict[str, tuple[float, bool]]:
    """The share of the difference that remains in each space, rho, and whether it can be trusted.

    Args:
        records: of the runs.
        run_id: of one run.
        spaces: names of the spaces that the run searched; one without a row is left out.

    Returns:
        space -> rho, and whether the planted shift was found in this space.
    """
    rows = records.rows[records.rows["run_id"] == run_id].drop_duplicates("metric")
    rows = rows.set_index("metric")
    found = {}
    for space in spaces:
        name = f"reproduction_{space}"
        if name in rows.index:
            # The metric's note says if the control failed.
            passed = "optimiser failed" not in str(rows.loc[name, "note"])
            found[space] = (float(rows["value"][name]), passed)
    return found


def draw(records: Records, theme: Theme) -> list[Drawing]:
    """One figure per attribute; none if no run has such images."""
    found = []
    for attribute, methods in sorted(reproduced(records).items()):
        found.append(
            Drawing(
                f"reproduction_{attribute}",
                f"Weight shifts reproduced by latent shifts, {theme.attribute(attribute)}",
                CAPTION,
                partial(reproduction_figure, methods),
                first=True,
            )
        )
    return found


def reproduction_figure(methods: dict[str, Reproduced], theme: Theme) -> Figure:
    """One column per method; one line each for start, weight shift and every space.

    The images are those of Cherepkov et al. 2021, Fig. 8 and 16.

    Args:
        methods: method -> its images and numbers, of one attribute.
        theme: of the methods.
    """
    # The lines of all methods, in the order of the first that has them.
    names = list(dict.fromkeys(name for one in methods.values() for name in one.lines))
    pictures = max(len(next(iter(one.lines.values()))) for one in methods.values())
    figure = new_figure(max(5.5, 0.9 + 0.62 * pictures * len(methods)), 0.4 + 0.85 * len(names))
    panels = figure.subplots(len(names), len(methods), squeeze=False)
    bare(panels)
    for column, method in enumerate(order_methods(methods, theme)):
        one = methods[method]
        panels[0][column].set_title(theme.method(method), wrap=True, fontsize=8.5, loc="center")
        for line, name in enumerate(names):
            axes = panels[line][column]
            if column == 0:
                axes.set_ylabel(
                    NAMES.get(name, name), fontsize=8.5, rotation=0, ha="right", va="center"
                )
            if name not in one.lines:
                continue
            show_picture(axes, side_by_side(one.lines[name]), 255)
            # Only the lines of spaces have a number.
            if name in one.rho:
                value, sound = one.rho[name]
                axes.set_xlabel(f"{value:.2f}" if sound else f"({value:.2f})", fontsize=8.5)
    return figure


def side_by_side(pictures: np.ndarray) -> np.ndarray:
    """(k, C, h, w) uint8 -> (h, k w + gaps, C), white between."""
    padded = np.pad(pictures, ((0, 0), (0, 0), (0, 0), (0, GAP)), constant_values=255)
    return np.concatenate(list(padded.transpose(0, 2, 3, 1)), 1)[:, :-GAP]
