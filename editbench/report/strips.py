"""Picture strips: the same starts under every method, source first, then small to large steps."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from editbench.base.errors import EditbenchError
from editbench.figures.theme import Theme
from editbench.report.load import Problem, Results, load

# Smoothing would blur the few pixels that the judge saw of a small picture.
PIXELATED = 64  # pictures up to this side are enlarged without smoothing
LARGEST = 128  # side of a picture in the page
# The orange that the page calls --cross in template.html.
OUTLINE = (238, 119, 51)
# Pixels of a page: between frames, of the line below a frame, and of a heading.
GAP = 6
CAPTION = 16
HEAD = 30
# matplotlib brings the font along; the system may have none with σ and arrows.
FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


@dataclass(frozen=True)
class Strip:
    """One start under one method. images (c, C, H, W) uint8, C 1 or 3, steps, effect and crossed
    (c,): effect in sigmas of the target, crossed where the judge gives the frame the target class;
    crossing: position of the first such frame, None when there is none; goal: source and target
    class in words, or ''.
    """

    method: str
    start: int
    images: np.ndarray
    steps: np.ndarray
    effect: np.ndarray
    crossed: np.ndarray
    crossing: int | None
    goal: str = ""
    # Whether the target comes after the source in the list of classes: neutral to smiling.
    adds: bool = False

    @property
    def title(self) -> str:
        return f"start {self.start}" + (f": {self.goal}" if self.goal else "")


def strips(
    results: Results, theme: Theme, most: int = 4
) -> tuple[dict[str, dict[int, list[Strip]]], list[Problem]]:
    """attribute -> start -> strips by method, in the order of `theme`, of at most `most` starts, those that
    most methods have first; and the files that could not be read. Edits that add an attribute, such
    as a smile, come before those that take it away.
    """
    found: dict[str, dict[int, list[Strip]]] = {}
    problems = []
    for run in results.runs[results.runs["status"] == "done"].to_dict("records"):
        try:
            arrays = results.strips(run["run_id"])
        # Damaged pictures of one run cost its strips alone.
        except EditbenchError as error:
            problems.append(Problem(run["run_id"], str(error)))
            continue
        for strip in _of_run(run["label"], arrays, run["classes"]) if arrays else []:
            found.setdefault(run["attribute"], {}).setdefault(strip.start, []).append(strip)
    chosen = {}
    place = {name: k for k, name in enumerate(theme)}
    for attribute in theme.order(found):
        starts = found[attribute]
        # The inner sort decides ties by the id of the start, so that the choice is reproducible.
        kept = sorted(sorted(starts), key=lambda start: -len(starts[start]))[:most]
        chosen[attribute] = {
            start: sorted(starts[start], key=lambda strip: place[strip.method])
            for start in sorted(kept, key=lambda start: (not starts[start][0].adds, start))
        }
    return chosen, problems


def strips_of_record(folder: Path) -> Sequence[Strip]:
    """The strips that one record keeps, in the order of its starts.

    Args:
        folder: of the record.

    Raises:
        EditbenchError: the record keeps no pictures, or they are damaged.
    """
    # `load` takes a folder of runs; of its records only this one is read.
    results = load(folder.parent, {folder.name})
    if results.problems:
        raise EditbenchError(f"{folder}: {results.problems[0].reason}")
    run = results.runs.iloc[0]
    arrays = results.strips(folder.name)
    if arrays is None:
        raise EditbenchError(f"{folder} holds no images; engine.pictures sets how many are kept")
    return _of_run(str(run["method"]), arrays, run["classes"])


def picture(image: np.ndarray) -> Image.Image:
    """(C, H, W) uint8, C 1 or 3."""
    # Pillow takes grey as (H, W) and colour as (H, W, 3) in contiguous memory.
    return Image.fromarray(
        image[0] if image.shape[0] == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    )


@dataclass(frozen=True)
class StripBlock:
    """Strips of one start that stand together on a page.

    Attributes:
        title: of the start.
        strips: below each other.
    """

    title: str
    strips: list[Strip]


@dataclass(frozen=True)
class Measures:
    """Pixels of a page of strips.

    Attributes:
        left: of the column of names.
        side: height and width of a frame.
        width: of the page.
    """

    left: int
    side: tuple[int, int]
    width: int

    @property
    def pitch(self) -> int:
        """From a strip to the next."""
        return self.side[0] + CAPTION + GAP

    def height(self, blocks: Sequence[StripBlock]) -> int:
        """Of a page with these blocks."""
        return HEAD + sum(HEAD + self.pitch * len(block.strips) for block in blocks) + GAP


def pages(
    starts: dict[int, list[Strip]], title: str, theme: Theme, ratio: float = math.inf
) -> list[bytes]:
    """All strips of an attribute as PNGs with labels; the crossing is outlined, the effect is
    under each frame.

    Args:
        starts: start -> its strips.
        title: heading.
        theme: how methods are written.
        ratio: the largest height of a page in its widths, so that a sheet of paper takes it. A page
            holds one strip in any case.
    """
    everything = [strip for row in starts.values() for strip in row]
    high, wide = everything[0].images.shape[-2:]
    # A whole number, so that every pixel of a small picture has the same size; about 96 pixels a
    # frame, and never less than the picture's own.
    scale = max(1, round(96 / max(high, wide)))
    side = (high * scale, wide * scale)
    font = ImageFont.truetype(str(FONT), 13)
    left = 24 + int(max(font.getlength(theme.method(strip.method)) for strip in everything))
    # Walks end at different steps; the longest sets the width.
    columns = max(len(strip.images) for strip in everything)
    measures = Measures(left, side, left + columns * (side[1] + GAP) + 12)
    parts = _parts(starts, measures, ratio * measures.width)
    made = []
    for number, blocks in enumerate(parts, 1):
        told = f"{title}, page {number} of {len(parts)}" if len(parts) > 1 else title
        made.append(_page(blocks, told, theme, measures))
    return made


def _parts(
    starts: dict[int, list[Strip]], measures: Measures, limit: float
) -> list[list[StripBlock]]:
    """The blocks of each page; none is higher than `limit` pixels, if that takes one strip."""
    room = (limit - measures.height([StripBlock("", [])])) / measures.pitch
    most = max(1, math.floor(room)) if math.isfinite(room) else sys.maxsize
    parts: list[list[StripBlock]] = []
    for strips in starts.values():
        # As even as the same number of blocks allows: one strip on a last page would look forgotten.
        size = -(-len(strips) // -(-len(strips) // most))
        for begin in range(0, len(strips), size):
            more = ", continued" if begin else ""
            block = StripBlock(strips[0].title + more, strips[begin : begin + size])
            if parts and measures.height([*parts[-1], block]) <= limit:
                parts[-1].append(block)
            else:
                parts.append([block])
    return parts


def _page(blocks: Sequence[StripBlock], title: str, theme: Theme, measures: Measures) -> bytes:
    font = ImageFont.truetype(str(FONT), 13)
    bold = ImageFont.truetype(str(FONT.with_name("DejaVuSans-Bold.ttf")), 15)
    small = ImageFont.truetype(str(FONT), 10)
    high, wide = measures.side
    page = Image.new("RGB", (measures.width, measures.height(blocks)), "white")
    draw = ImageDraw.Draw(page)
    draw.text((12, 8), title, fill="black", font=bold)
    y = HEAD
    for block in blocks:
        draw.text((12, y + 10), block.title, fill="#57606a", font=font)
        y += HEAD
        for strip in block.strips:
            named = theme.method(strip.method)
            draw.text((12, y + high // 2 - 8), named, fill="black", font=font)
            for place, image in enumerate(strip.images):
                x = measures.left + place * (wide + GAP)
                smooth = max(image.shape[-2:]) > PIXELATED
                shown = picture(image).resize(
                    (wide, high),
                    Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST,
                )
                page.paste(shown, (x, y))
                if place == strip.crossing:
                    # Around the picture and not over it: the frame hides no pixel.
                    draw.rectangle(
                        (x - 3, y - 3, x + wide + 2, y + high + 2), outline=OUTLINE, width=3
                    )
                draw.text(
                    (x + wide / 2, y + high + 3),
                    frame_caption(strip, place),
                    fill="#57606a",
                    font=small,
                    anchor="ma",
                )
            y += measures.pitch
    buffer = io.BytesIO()
    page.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def frame_caption(strip: Strip, place: int) -> str:
    """'source', or the achieved effect: '+1.2 σ'."""
    if strip.steps[place] == 0:
        return "source"
    value = strip.effect[place]
    # A typographic minus, as wide as the plus.
    return f"{value:+.1f} σ".replace("-", "−") if np.isfinite(value) else "not finite"


def _of_run(method: str, arrays: dict[str, np.ndarray], classes: Sequence[str]) -> Sequence[Strip]:
    found = []
    for k, start in enumerate(arrays["starts"].tolist()):
        steps = arrays["steps"][k]
        keep = np.concatenate([[True], steps[1:] != steps[:-1]]) & (
            steps >= 0
        )  # short walks are padded by repeats
        crossed = arrays["crossed"][k][keep]
        found.append(
            Strip(
                method,
                int(start),
                arrays["images"][k][keep],
                steps[keep],
                arrays["effect"][k][keep],
                crossed,
                # argmax is 0 where there is none, which would read as the source.
                int(crossed.argmax()) if crossed.any() else None,
                _goal(arrays, k, classes),
                _adds(arrays, k),
            )
        )
    return found


def _goal(arrays: dict[str, np.ndarray], k: int, classes: Sequence[str]) -> str:
    # Records without the classes of a walk keep their strips, without a goal in the title.
    if not {"source", "target"} <= set(arrays) or not classes:
        return ""
    return f"{classes[int(arrays['source'][k])]} → {classes[int(arrays['target'][k])]}"


def _adds(arrays: dict[str, np.ndarray], k: int) -> bool:
    if not {"source", "target"} <= set(arrays):
        return False
    return bool(arrays["target"][k] > arrays["source"][k])
