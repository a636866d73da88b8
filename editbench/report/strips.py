"""Picture strips: the same starts under every method, source first, then small to large steps."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from editbench.base.errors import EditbenchError
from editbench.report.load import Problem, Results, load
from editbench.walk.figures import Looks

# Smoothing would blur the few pixels that the judge saw of a small picture.
PIXELATED = 64  # pictures up to this side are enlarged without smoothing
LARGEST = 128  # side of a picture in the page
# The orange that the page calls --cross in template.html.
OUTLINE = (238, 119, 51)
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
    results: Results, look: Looks, most: int = 4
) -> tuple[dict[str, dict[int, list[Strip]]], list[Problem]]:
    """attribute -> start -> strips by method, in the order of `look`, of at most `most` starts, those that
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
    place = {name: k for k, name in enumerate(look)}
    for attribute in look.order(found):
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
        raise EditbenchError(f"{folder} keeps no pictures; engine.pictures sets how many are kept")
    return _of_run(str(run["method"]), arrays, run["classes"])


def picture(image: np.ndarray) -> Image.Image:
    """(C, H, W) uint8, C 1 or 3."""
    # Pillow takes grey as (H, W) and colour as (H, W, 3) in contiguous memory.
    return Image.fromarray(
        image[0] if image.shape[0] == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    )


def sheet(starts: dict[int, list[Strip]], title: str, look: Looks) -> bytes:
    """All strips of an attribute as one PNG with labels; the crossing is outlined, the effect is
    under each frame.

    Args:
        starts: start -> its strips.
        title: heading.
        look: how methods are written.
    """
    everything = [strip for row in starts.values() for strip in row]
    height, width = everything[0].images.shape[-2:]
    # A whole number, so that every pixel of a small picture has the same size; about 96 pixels a
    # frame, and never less than the picture's own.
    scale = max(1, round(96 / max(height, width)))
    side_w, side_h, gap, caption, head = width * scale, height * scale, 6, 16, 30
    font, bold = (
        ImageFont.truetype(str(FONT), 13),
        ImageFont.truetype(str(FONT.with_name("DejaVuSans-Bold.ttf")), 15),
    )
    small = ImageFont.truetype(str(FONT), 10)
    left = 24 + int(max(font.getlength(look.method(strip.method)) for strip in everything))
    # Walks end at different steps; the longest sets the width.
    columns = max(len(strip.images) for strip in everything)
    pitch = side_h + caption + gap
    total = head + sum(head + pitch * len(row) for row in starts.values())
    page = Image.new("RGB", (left + columns * (side_w + gap) + 12, total + 8), "white")
    draw = ImageDraw.Draw(page)
    draw.text((12, 8), title, fill="black", font=bold)
    y = head
    for row in starts.values():
        draw.text((12, y + 10), row[0].title, fill="#57606a", font=font)
        y += head
        for strip in row:
            named = look.method(strip.method)
            draw.text((12, y + side_h // 2 - 8), named, fill="black", font=font)
            for place, image in enumerate(strip.images):
                x = left + place * (side_w + gap)
                smooth = max(height, width) > PIXELATED
                shown = picture(image).resize(
                    (side_w, side_h),
                    Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST,
                )
                page.paste(shown, (x, y))
                if place == strip.crossing:
                    # Around the picture and not over it: the frame hides no pixel.
                    draw.rectangle(
                        (x - 3, y - 3, x + side_w + 2, y + side_h + 2), outline=OUTLINE, width=3
                    )
                draw.text(
                    (x + side_w / 2, y + side_h + 3),
                    frame_caption(strip, place),
                    fill="#57606a",
                    font=small,
                    anchor="ma",
                )
            y += pitch
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
