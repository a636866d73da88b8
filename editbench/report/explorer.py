"""The images of the page: one sprite per attribute and start, for the strips and the explorer.

A sprite has one row per method and one column per frame. The page contains each sprite once, as the
background of a CSS class, so that no image is stored twice and the sprites stay within BUDGET.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from PIL import Image

from editbench.figures.theme import Theme, order_methods
from editbench.report.strips import LARGEST, PIXELATED, Strip, frame_caption, picture

BUDGET = 14_000_000  # bytes of all sprites in base64; keeps the page with its figures below 25 MB
BLOCK = 8  # pixels; cells of a JPEG consist of whole blocks, so that images do not mix
FIRST = "smile"  # the attribute that a page shows first, if present, since its edit is obvious
Gallery = Mapping[str, Mapping[int, list[Strip]]]


@dataclass(frozen=True)
class ImageEncoding:
    """How the images of a sprite are stored.

    Attributes:
        kind: 'PNG' or 'JPEG'.
        side: maximum side of an image, in pixels.
        quality: of a JPEG, up to 95.
    """

    kind: str
    side: int
    quality: int = 0


# From the best quality to the smallest size; PNG is lossless.
WAYS = (
    ImageEncoding("PNG", PIXELATED),
    ImageEncoding("JPEG", LARGEST, 88),
    ImageEncoding("JPEG", 96, 84),
    ImageEncoding("JPEG", 64, 80),
    ImageEncoding("JPEG", 48, 70),
    ImageEncoding("JPEG", 32, 60),
    ImageEncoding("JPEG", 32, 30),
)


@dataclass
class SpriteSheet:
    """One sprite.

    Attributes:
        name: its CSS class.
        uri: its image, as a data URI.
        columns: number of frames of the longest strip.
        rows: number of strips.
        shape: height and width of a cell, in pixels.
        strips: one per row.
    """

    name: str
    uri: str
    columns: int
    rows: int
    shape: tuple[int, int]
    strips: list[Strip] = field(default_factory=list)

    @property
    def css(self) -> str:
        """The CSS rule that shows the sprite as a background."""
        # With sizes in per cent, the sprite scales with its cell, whose size the page may choose.
        high, wide = self.shape
        soft = "" if max(self.shape) > PIXELATED else " image-rendering: pixelated;"
        return (
            f".{self.name} "
            f"{{ background-image: url({self.uri}); background-size: {100 * self.columns}% "
            f"{100 * self.rows}%; aspect-ratio: {wide} / {high};{soft} }}"
        )

    def place(self, row: int, column: int) -> str:
        """CSS background-position of a cell, in per cent.

        Args:
            row: number of the strip, from 0.
            column: number of the frame, from 0.
        """
        # count - 1, since a background position of 100 % is the last cell, not the one after it.
        return " ".join(
            f"{100 * at / max(count - 1, 1):.6g}%"
            for at, count in ((column, self.columns), (row, self.rows))
        )


def sheets(
    galleries: list[Gallery], budget: int = BUDGET, first: str = FIRST
) -> list[dict[str, list[SpriteSheet]]]:
    """The sprites of each section of the page.

    All sections use the first of WAYS with which all sprites fit into the budget, or the last one
    if none does. Images larger than PIXELATED are never stored as PNG.

    Args:
        galleries: of each section: attribute -> start -> its strips, one per method.
        budget: bytes of all sprites together, in base64.
        first: the attribute that comes first; the others keep their order.

    Returns:
        Of each section: attribute -> one sprite per start, in order.
    """
    # One encoding for the whole page, so that all images look alike.
    largest = max(
        (
            max(strip.images.shape[-2:])
            for found in galleries
            for starts in found.values()
            for strips in starts.values()
            for strip in strips
        ),
        default=0,
    )
    # If even the last encoding exceeds the budget, its sprites are used nevertheless.
    made: list[dict[str, list[SpriteSheet]]] = [{} for _ in galleries]
    for way in WAYS:
        if way.kind == "PNG" and largest > PIXELATED:
            continue
        spent = 0
        for section, found in enumerate(galleries):
            # sorted keeps the order of equal keys.
            attributes = sorted(found, key=lambda attribute: attribute != first)
            made[section] = {attribute: [] for attribute in attributes}
            for a, attribute in enumerate(attributes):
                for k, strips in enumerate(found[attribute].values()):
                    sheet = _sheet(f"sp-{section}-{a}-{k}", strips, way)
                    made[section][attribute].append(sheet)
                    spent += len(sheet.uri)
        if spent <= budget:
            break
    return made


def explorer(
    found: dict[str, list[SpriteSheet]],
    runs: pd.DataFrame,
    theme: Theme,
    outlines: Mapping[str, str],
    floors: Collection[str] = (),
) -> dict:
    """The data of a section's explorer, as JSON-like values.

    Args:
        found: attribute -> its sprites, one per start.
        runs: of the section.
        theme: how methods and attributes are shown.
        outlines: marker -> its outline as an SVG path.
        floors: methods that do not influence which start is shown first.

    Returns:
        - methods: name, colour and outline.
        - attributes: name, `first` (the start that is shown first) and starts. A start has its
          title, its sprite and, for every method, either its row in the sprite with steps, effects
          (null if not finite) and crossed, or the reason why it has no images.
    """
    # Methods without images are included, since the explorer shows the reason.
    shown = {strip.method for group in found.values() for sheet in group for strip in sheet.strips}
    methods = order_methods(shown | set(runs["label"]), theme)
    status = {(run["label"], run["attribute"]): run for run in runs.to_dict("records")}
    return {
        "methods": [
            {
                "name": theme.method(name),
                "colour": theme[name].colour,
                "outline": outlines[theme[name].marker],
            }
            for name in methods
        ],
        "attributes": [
            {
                "name": theme.attribute(attribute),
                "first": _clearest(group, floors),
                "starts": [
                    {
                        "title": sheet.strips[0].title,
                        "sprite": sheet.name,
                        "columns": sheet.columns,
                        "rows": sheet.rows,
                        "methods": [
                            _frames(sheet, name, status.get((name, attribute))) for name in methods
                        ],
                    }
                    for sheet in group
                ],
            }
            for attribute, group in found.items()
        ],
    }


def _clearest(group: list[SpriteSheet], floors: Collection[str]) -> int:
    """Position of the start that crosses the boundary under the most methods.

    Of several such starts, it is the one with the largest median effect at the crossing. A start
    close to its boundary crosses before the edit can be seen.
    """
    keys = []
    for sheet in group:
        effects = [
            float(strip.effect[strip.crossing])
            for strip in sheet.strips
            if strip.crossing is not None and strip.method not in floors
        ]
        keys.append((len(effects), float(np.median(effects)) if effects else 0.0))
    return keys.index(max(keys))


def gallery(found: dict[str, list[SpriteSheet]]) -> list[tuple[str, list[tuple[str, list[dict]]]]]:
    """The static strips of the page: [(attribute, [(title of the start, [strip])])]."""
    shown = []
    for attribute, group in found.items():
        starts = [(sheet.strips[0].title, _static_strips(sheet)) for sheet in group]
        shown.append((attribute, starts))
    return shown


def _static_strips(sheet: SpriteSheet) -> list[dict]:
    """The strips of a sprite, with the position and the caption of every frame."""
    strips = []
    for row, strip in enumerate(sheet.strips):
        frames = []
        for column, step in enumerate(strip.steps):
            frames.append(
                {
                    "place": sheet.place(row, column),
                    "caption": frame_caption(strip, column),
                    "step": int(step),
                    "crossing": column == strip.crossing,
                }
            )
        strips.append({"method": strip.method, "sprite": sheet.name, "frames": frames})
    return strips


def css(parts: Iterable[dict[str, list[SpriteSheet]]]) -> str:
    """The CSS classes of all sprites."""
    return "\n".join(sheet.css for part in parts for group in part.values() for sheet in group)


def _frames(sheet: SpriteSheet, method: str, run: dict | None) -> dict:
    """The frames of a method in a sprite, or the reason why it has none; see `explorer`."""
    for row, strip in enumerate(sheet.strips):
        if strip.method == method:
            # JSON has no NaN. Three decimals keep the page small.
            effects = [
                round(float(value), 3) if np.isfinite(value) else None for value in strip.effect
            ]
            return {
                "row": row,
                "steps": strip.steps.tolist(),
                "effects": effects,
                "crossed": np.asarray(strip.crossed, bool).tolist(),
            }
    # The reason is shown in place of the image; an empty place would look like an error.
    if run is None:
        return {"why": "not run"}
    if run["status"] == "done":
        return {"why": "no images of this start"}
    return {"why": f"{run['status']}: {run['reason']}"}


def _sheet(name: str, strips: list[Strip], way: ImageEncoding) -> SpriteSheet:
    high, wide = strips[0].images.shape[-2:]
    # Images are not enlarged here, since the browser can do it without more bytes.
    scale = min(1.0, way.side / max(high, wide))
    if way.kind == "JPEG":  # round to whole blocks
        high, wide = (max(BLOCK, BLOCK * round(side * scale / BLOCK)) for side in (high, wide))
    columns = max(len(strip.images) for strip in strips)
    # Greyscale sprites need a third of the bytes before compression.
    mode = "L" if all(strip.images.shape[1] == 1 for strip in strips) else "RGB"
    page = Image.new(mode, (columns * wide, len(strips) * high))
    for row, strip in enumerate(strips):
        for column, image in enumerate(strip.images):
            one = picture(image).convert(mode)
            if one.size != (wide, high):
                one = one.resize((wide, high), Image.Resampling.LANCZOS)
            page.paste(one, (column * wide, row * high))
    buffer = io.BytesIO()
    if way.kind == "PNG":
        # A higher level takes twice as long and saves one byte in five hundred.
        page.save(buffer, "PNG", compress_level=4)
    else:
        # With subsampling, blocks of colour would be 16 pixels wide and could extend into the next
        # cell, since the sides of cells are multiples of BLOCK.
        page.save(buffer, "JPEG", quality=way.quality, subsampling=0)
    uri = f"data:image/{way.kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return SpriteSheet(name, uri, columns, len(strips), (high, wide), strips)
