"""Strips of images: one start under each method, the source first, then increasing steps."""

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
from editbench.report.load import Results, load
from editbench.report.problem import Problem

# Images up to this side are enlarged without smoothing, which would blur the pixels that the judge
# saw.
PIXELATED = 64
LARGEST = 128  # side of an image on the page
# The orange that is --cross in template.html.
OUTLINE = (238, 119, 51)
# Sizes in pixels: between frames, of the line below a frame, and of a heading.
GAP = 6
CAPTION = 16
HEAD = 30
# This font is part of matplotlib; the system may have no font with σ and arrows.
FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


@dataclass(frozen=True)
class Strip:
    """The strip of one start under one method, with c frames.

    Attributes:
        method: its label.
        start: id of the start.
        images: (c, C, H, W) uint8, C = 1 or 3.
        steps: (c,) step of each frame; 0 is the source.
        effect: (c,) achieved effect, in σ of the target.
        crossed: (c,) whether the judge assigns the target class to the frame.
        crossing: position of the first frame that has crossed; None if none has.
        goal: names of the source and the target class, 'neutral → smiling'; '' if unknown.
        adds: whether the target comes after the source in the list of classes, as in this example.
    """

    method: str
    start: int
    images: np.ndarray
    steps: np.ndarray
    effect: np.ndarray
    crossed: np.ndarray
    crossing: int | None
    goal: str = ""
    adds: bool = False

    @property
    def title(self) -> str:
        """'start 40: neutral → smiling'."""
        return f"start {self.start}" + (f": {self.goal}" if self.goal else "")


def strips(
    results: Results, theme: Theme, most: int = 4
) -> tuple[dict[str, dict[int, list[Strip]]], list[Problem]]:
    """The strips of the finished runs, and the files that could not be read.

    Args:
        results: of one setting.
        theme: gives the order of methods and attributes.
        most: starts of each attribute, preferably those that most methods have.

    Returns:
        Attribute -> start -> strips by method, and the problems. Edits that add an attribute, such
        as a smile, come before edits that remove it.
    """
    found: dict[str, dict[int, list[Strip]]] = {}
    problems = []
    for run in results.runs[results.runs["status"] == "done"].to_dict("records"):
        try:
            arrays = results.strips(run["run_id"])
        # Damaged images of a run affect only its own strips.
        except EditbenchError as error:
            problems.append(Problem(run["run_id"], str(error)))
            continue
        for strip in _of_run(run["label"], arrays, run["classes"]) if arrays else []:
            found.setdefault(run["attribute"], {}).setdefault(strip.start, []).append(strip)
    chosen = {}
    place = {name: k for k, name in enumerate(theme)}
    for attribute in theme.order(found):
        starts = found[attribute]
        # The inner sort breaks ties by the id of the start, so that the choice is reproducible.
        kept = sorted(sorted(starts), key=lambda start: -len(starts[start]))[:most]
        chosen[attribute] = {
            start: sorted(starts[start], key=lambda strip: place[strip.method])
            for start in sorted(kept, key=lambda start: (not starts[start][0].adds, start))
        }
    return chosen, problems


def strips_of_record(folder: Path) -> Sequence[Strip]:
    """The strips of one record, in the order of its starts.

    Args:
        folder: of the record.

    Raises:
        EditbenchError: the record has no images, or they are damaged.
    """
    # `load` needs the folder of runs, of which it reads only this record.
    results = load(folder.parent, {folder.name})
    if results.problems:
        raise EditbenchError(f"{folder}: {results.problems[0].reason}")
    run = results.runs.iloc[0]
    arrays = results.strips(folder.name)
    if arrays is None:
        raise EditbenchError(f"{folder} holds no images; engine.pictures sets how many are kept")
    return _of_run(str(run["method"]), arrays, run["classes"])


def picture(image: np.ndarray) -> Image.Image:
    """Convert an array (C, H, W) uint8, C = 1 or 3, to a Pillow image."""
    # Pillow needs (H, W) or (H, W, 3) in contiguous memory.
    return Image.fromarray(
        image[0] if image.shape[0] == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    )


@dataclass(frozen=True)
class StripBlock:
    """Strips of one start that are on the same page.

    Attributes:
        title: of the start.
        strips: from top to bottom.
    """

    title: str
    strips: list[Strip]


@dataclass(frozen=True)
class Measures:
    """Sizes of a page of strips in pixels.

    Attributes:
        left: width of the column of names.
        side: height and width of a frame.
        width: of the page.
    """

    left: int
    side: tuple[int, int]
    width: int

    @property
    def pitch(self) -> int:
        """Distance between successive strips."""
        return self.side[0] + CAPTION + GAP

    def height(self, blocks: Sequence[StripBlock]) -> int:
        """Height of a page with these blocks."""
        return HEAD + sum(HEAD + self.pitch * len(block.strips) for block in blocks) + GAP


def pages(
    starts: dict[int, list[Strip]], title: str, theme: Theme, ratio: float = math.inf
) -> list[bytes]:
    """All strips of an attribute as labelled PNGs.

    The crossing is outlined, and the effect is below each frame.

    Args:
        starts: start -> its strips.
        title: heading.
        theme: how methods are written.
        ratio: maximum ratio of a page's height to its width, for printing. A page always has at
            least one strip.
    """
    everything = [strip for row in starts.values() for strip in row]
    high, wide = everything[0].images.shape[-2:]
    # An integer, so that all pixels are enlarged equally. A frame has about 96 pixels, or more if
    # its image is larger.
    scale = max(1, round(96 / max(high, wide)))
    side = (high * scale, wide * scale)
    font = ImageFont.truetype(str(FONT), 13)
    left = 24 + int(max(font.getlength(theme.method(strip.method)) for strip in everything))
    # Walks have different numbers of steps; the longest determines the width.
    columns = max(len(strip.images) for strip in everything)
    measures = Measures(left, side, left + columns * (side[1] + GAP) + 12)
    parts = _parts(starts, measures, ratio * measures.width)
    made = []
    for number, blocks in enumerate(parts, 1):
        heading = f"{title}, page {number} of {len(parts)}" if len(parts) > 1 else title
        made.append(_page(blocks, heading, theme, measures))
    return made


def _parts(
    starts: dict[int, list[Strip]], measures: Measures, limit: float
) -> list[list[StripBlock]]:
    """The blocks of each page. A page with more than one strip is at most `limit` pixels high."""
    room = (limit - measures.height([StripBlock("", [])])) / measures.pitch
    most = max(1, math.floor(room)) if math.isfinite(room) else sys.maxsize
    parts: list[list[StripBlock]] = []
    for strips in starts.values():
        # Strips are distributed evenly, so that the last block is not much shorter.
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
                    # Around the image, so that no pixel is hidden.
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
    """'source', or the achieved effect, such as '+1.2 σ'.

    Args:
        strip: of the frame.
        place: of the frame in the strip, from 0.
    """
    if strip.steps[place] == 0:
        return "source"
    value = strip.effect[place]
    # A typographic minus, as wide as the plus.
    return f"{value:+.1f} σ".replace("-", "−") if np.isfinite(value) else "not finite"


def _of_run(method: str, arrays: dict[str, np.ndarray], classes: Sequence[str]) -> Sequence[Strip]:
    found = []
    for k, start in enumerate(arrays["starts"].tolist()):
        steps = arrays["steps"][k]
        # A short walk repeats its last step.
        keep = np.concatenate([[True], steps[1:] != steps[:-1]])
        crossed = arrays["crossed"][k][keep]
        found.append(
            Strip(
                method,
                int(start),
                arrays["images"][k][keep],
                steps[keep],
                arrays["effect"][k][keep],
                crossed,
                # Without a crossing argmax is 0, which would be the source.
                int(crossed.argmax()) if crossed.any() else None,
                _goal(arrays, k, classes),
                _adds(arrays, k),
            )
        )
    return found


def _goal(arrays: dict[str, np.ndarray], k: int, classes: Sequence[str]) -> str:
    # For records without the classes of a walk, the title has no goal.
    if not {"source", "target"} <= set(arrays) or not classes:
        return ""
    return f"{classes[int(arrays['source'][k])]} → {classes[int(arrays['target'][k])]}"


def _adds(arrays: dict[str, np.ndarray], k: int) -> bool:
    if not {"source", "target"} <= set(arrays):
        return False
    return bool(arrays["target"][k] > arrays["source"][k])
