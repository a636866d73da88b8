"""The page of an atlas: one HTML file with a row per direction, its strips and its effects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from editbench.base.files import write_atomic
from editbench.report.explorer import SpriteSheet, css, sheets
from editbench.report.strips import Strip
from editbench.report.templates import page_environment
from editbench.studies.atlas.make import Atlas
from editbench.studies.atlas.summary import effect_table, summary_table

# Directions per sprite, since browsers do not draw images of tens of thousands of pixels.
ROWS = 32
FULL = 1.5  # sigmas: an effect of this size has the darkest shade


@dataclass(frozen=True)
class Frame:
    """A frame of a strip: its position in the sprite, its caption, and whether it is unedited."""

    place: str
    caption: str
    unedited: bool


@dataclass(frozen=True)
class DirectionRow:
    """A row of the page.

    Args:
        values: row of the summary.
        strips: (sample, class of the sprite, frames) of each sample that is shown.
        effects: (low, high, larger size, shade) of each log-odds; the numbers are None if a picture
            was not finite.
    """

    values: dict
    strips: list[tuple[int, str, list[Frame]]]
    effects: list[tuple[float | None, float | None, float | None, str]]


def write_atlas(folder: Path, atlas: Atlas) -> list[Path]:
    """Write atlas.csv and index.html.

    Args:
        folder: created if it does not exist.
        atlas: of a method.

    Returns:
        The page, then the table.
    """
    table = folder / "atlas.csv"
    page = folder / "index.html"
    text = effect_table(atlas).to_csv(index=False, lineterminator="\n", float_format="%.6g")
    write_atomic(table, text)
    write_atomic(page, render_page(atlas))
    return [page, table]


def render_page(atlas: Atlas) -> str:
    """The page as text."""
    blocks = sprites(atlas)
    environment = page_environment("studies/atlas")
    environment.filters["signed"] = signed
    return environment.get_template("atlas.html").render(
        atlas=atlas,
        columns=[name.replace("_", " ") for name in atlas.attributes.columns()],
        low=f"{atlas.strengths[0]:+g}".replace("-", "−"),
        high=f"{atlas.strengths[-1]:+g}",
        rows=page_rows(atlas, blocks),
        sprites=css([blocks]),
    )


def sprites(atlas: Atlas) -> dict[str, list[SpriteSheet]]:
    """Block of ROWS directions -> a sprite for each sample that is shown."""
    middle = len(atlas.strengths) // 2
    steps = np.insert(np.array(atlas.strengths), middle, 0.0)
    gallery: dict[str, dict[int, list[Strip]]] = {}
    for place, name in enumerate(atlas.names):
        starts = gallery.setdefault(f"{place // ROWS:05d}", {})
        for k, sample in enumerate(atlas.index):
            images = _with_unedited(atlas.measured.pictures[place, :, k], atlas.unedited[k])
            nothing = np.zeros(len(steps))
            strip = Strip(name, sample, images, steps, nothing, nothing.astype(bool), None)
            starts.setdefault(sample, []).append(strip)
    return sheets([gallery])[0]


def _with_unedited(edited: Tensor, unedited: Tensor) -> np.ndarray:
    """Insert the unedited picture into (T, C, H, W) at strength 0, in the middle."""
    return np.insert(edited.numpy(), len(edited) // 2, unedited.numpy(), axis=0)


def page_rows(atlas: Atlas, blocks: dict[str, list[SpriteSheet]]) -> list[DirectionRow]:
    """What the page shows of each direction.

    Args:
        atlas: of a method.
        blocks: the sprites of `sprites`.

    Returns:
        One row per direction, in the order of `summary_table`.
    """
    names = atlas.attributes.columns()
    rows = []
    for values in summary_table(atlas).to_dict("records"):
        # A sprite has ROWS directions.
        block, row = divmod(values["place"], ROWS)
        strips = []
        for k, sheet in enumerate(blocks[f"{block:05d}"]):
            strips.append((k, sheet.name, _frames(sheet, row)))
        effects = []
        for name in names:
            low = finite(values[f"{name}:low"])
            high = finite(values[f"{name}:high"])
            sizes = [abs(value) for value in (low, high) if value is not None]
            effects.append((low, high, max(sizes, default=None), shade(low, high)))
        for key in ("effect", "off_target", "ratio", "distance"):
            values[key] = finite(values[key])
        rows.append(DirectionRow(values, strips, effects))
    return rows


def _frames(sheet: SpriteSheet, row: int) -> list[Frame]:
    frames = []
    for column, step in enumerate(sheet.strips[row].steps):
        caption = f"{step:+g}".replace("-", "−")
        if step == 0:
            caption = "unedited"
        frames.append(Frame(sheet.place(row, column), caption, step == 0))
    return frames


def finite(value: float) -> float | None:
    """The number, or None where it is none."""
    if pd.isna(value) or not math.isfinite(value):
        return None
    return float(value)


def signed(value: float | None) -> str:
    """'+1.20', with a typographic minus; '–' where there is no number."""
    if value is None:
        return "–"
    return f"{value:+.2f}".replace("-", "−")


def shade(low: float | None, high: float | None) -> str:
    """Background of the two ends of an attribute, as CSS: blue below 0, red above, by the size.

    Args:
        low: mean change of the log-odds at the lowest strength, in sigmas; None is not coloured.
        high: the same at the highest.
    """
    stops = []
    for value in (low, high):
        # Beyond FULL the colour stays the same, so that one large effect does not fade the others.
        amount = min(abs(value or 0.0) / FULL, 1.0)
        colour = "59, 108, 183" if (value or 0.0) < 0 else "201, 74, 58"
        stops.append(f"rgba({colour}, {0.6 * amount:.2f})")
    return f"linear-gradient(90deg, {stops[0]} 50%, {stops[1]} 50%)"
