"""The page of a scorer's check: tables, and pictures with the lowest and highest log-odds."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from editbench.base.attributes import Attribute
from editbench.base.files import write_atomic
from editbench.base.images import to_host_bytes
from editbench.report.templates import page_environment
from editbench.studies.scorer_check.checkup import Checkup
from editbench.studies.scorer_check.sources import PictureSource

SHOWN = 8  # pictures per row
SIDE = 96  # of a picture on the page, in pixels
# Pixels of the sheet.
MARGIN = 190  # width of the captions on the left
LINE = 14  # height of a line of text


@dataclass
class PictureRow:
    """A row of pictures with their log-odds.

    Attributes:
        caption: the class that the scorer assigns.
        odds: log-odds of each picture.
        strip: the pictures side by side.
        image: the strip as a PNG in a data URI; '' for codes.
    """

    caption: str
    odds: list[float]
    strip: Image.Image
    image: str = ""


@dataclass
class AttributeSection:
    """One attribute on the page."""

    name: str
    shares: list[tuple[str, float]]
    rows: list[PictureRow] = field(default_factory=list)


def picture_sections(
    checkup: Checkup, pictures: PictureSource, images: bool = True
) -> list[AttributeSection]:
    """The rows of pictures of every attribute.

    For a binary attribute they are of class 0, near the boundary, and of class 1; otherwise of each
    class.

    Args:
        checkup: of the scorer.
        pictures: that were scored.
        images: whether there are pictures; for codes, the strips are empty.
    """
    # Pictures without finite logits cannot be sorted.
    finite = torch.isfinite(checkup.logits).all(1).nonzero()[:, 0]
    odds = checkup.attributes.log_odds(checkup.logits[finite])
    sections = []
    for item in checkup.attributes:
        shares = checkup.shares[checkup.shares["attribute"] == item.name]
        section = AttributeSection(item.name, list(zip(shares["class"], shares["share"])))
        for caption, rows, column in _choose_pictures(
            item, checkup.attributes.logits(odds, item.name)
        ):
            # A strip that is not shown is replaced by one pixel.
            strip = Image.new("RGB", (1, 1))
            image = ""
            if images:
                strip = join_pictures(pictures(finite[rows].tolist()))
                image = data_uri(strip)
            section.rows.append(PictureRow(caption, column[rows].tolist(), strip, image))
        sections.append(section)
    return sections


def _choose_pictures(item: Attribute, odds: Tensor) -> list[tuple[str, Tensor, Tensor]]:
    """The rows of pictures that are shown of an attribute.

    Args:
        item: the attribute.
        odds: (n, width) its log-odds.

    Returns:
        For each row its caption, the pictures (at most SHOWN,), and the log-odds (n,) of them all.
    """
    # Stable sorts keep the order of ties, so the page is reproducible.
    if not item.binary:
        chosen = []
        for c, label in enumerate(item.classes):
            surest = odds[:, c].argsort(stable=True, descending=True)[:SHOWN]
            chosen.append((f"{label} (surest)", surest, odds[:, c]))
        return chosen
    column = odds[:, 0]
    lowest = column.argsort(stable=True)[:SHOWN]
    near = column.abs().argsort(stable=True)[:SHOWN]
    near = near[column[near].argsort(stable=True)]
    # Ascending like the other rows.
    highest = column.argsort(stable=True, descending=True)[:SHOWN].flip(0)
    return [
        (f"class 0: {item.classes[0]} (lowest)", lowest, column),
        ("nearest the boundary", near, column),
        (f"class 1: {item.classes[1]} (highest)", highest, column),
    ]


def join_pictures(decoded: Tensor) -> Image.Image:
    """Put pictures (n, 1 or 3, H, W) in [-1, 1] side by side, each SIDE high and wide.

    Small pictures are enlarged without smoothing.
    """
    pixels = to_host_bytes(decoded).permute(0, 2, 3, 1).numpy()
    # The strip is in colour.
    if pixels.shape[3] == 1:
        pixels = np.repeat(pixels, 3, 3)
    strip = Image.new("RGB", (SIDE * len(pixels), SIDE), "white")
    # Smoothing would hide the pixels that the scorer saw.
    how = Image.Resampling.LANCZOS
    if max(pixels.shape[1:3]) <= SIDE:
        how = Image.Resampling.NEAREST
    for k, picture in enumerate(pixels):
        strip.paste(Image.fromarray(picture).resize((SIDE, SIDE), how), (k * SIDE, 0))
    return strip


def data_uri(image: Image.Image) -> str:
    """A picture as a PNG in a data URI."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def draw_sheet(parts: list[AttributeSection], title: str) -> Image.Image:
    """One image with the rows of all attributes, their captions and log-odds.

    Args:
        parts: of `picture_sections`.
        title: of the image.
    """
    # The title, then for each attribute its name and its rows.
    height = LINE + 6 + sum(LINE + 8 + len(part.rows) * (SIDE + LINE + 2) for part in parts)
    out = Image.new("RGB", (MARGIN + SHOWN * SIDE + 4, height), "white")
    draw = ImageDraw.Draw(out)
    top = LINE + 6
    draw.text((4, 3), title, "black")
    for part in parts:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in part.shares)
        draw.text((4, top), f"{part.name}: {shares}", "black")
        top += LINE + 2
        for row in part.rows:
            out.paste(row.strip, (MARGIN, top))
            draw.text((4, top + SIDE // 2 - 6), row.caption, "black")
            for k, value in enumerate(row.odds):
                draw.text((MARGIN + k * SIDE + 2, top + SIDE), f"{value:+.1f}", "gray")
            top += SIDE + LINE + 2
        top += 6
    return out


def write_page(
    out: Path,
    source: str,
    checkups: list[Checkup],
    pictures: PictureSource,
    agreements: list[tuple],
    images: bool = True,
) -> list[Path]:
    """Write check.html, and check-ROLE.png for each scorer.

    Args:
        out: folder of the files.
        source: name of the scorers, for titles.
        checkups: of the scorers.
        pictures: that were scored.
        agreements: (title, table) of pairs of scorers.
        images: whether there are pictures; for codes no PNG is written.

    Returns:
        Paths of the files, the page first.
    """
    environment = page_environment("studies/scorer_check")
    environment.filters["signed"] = lambda value: f"{value:+.2f}" if math.isfinite(value) else "∞"
    shown = [(checkup, picture_sections(checkup, pictures, images)) for checkup in checkups]
    page = environment.get_template("check.html").render(
        source=source,
        about=pictures.about,
        shown=shown,
        images=images,
        side=SIDE,
        agreements=agreements,
        shade=shade,
    )
    write_atomic(out / "check.html", page)
    written = [out / "check.html"]
    for checkup, parts in shown if images else ():
        stream = io.BytesIO()
        draw_sheet(parts, f"{source}: {checkup.role}; {pictures.about}").save(stream, "PNG")
        # One scorer in both roles is "teacher and judge".
        picture = out / f"check-{checkup.role.replace(' ', '-')}.png"
        write_atomic(picture, stream.getvalue())
        written.append(picture)
    return written


def shade(r: float) -> str:
    """Background of a correlation: blue below 0, red above, by its size."""
    end = (255, 90, 60) if r > 0 else (60, 130, 255)
    # 0.8 keeps black text readable on the colour.
    weight = min(abs(r), 1) * 0.8 if pd.notna(r) else 0.0
    return "rgb({},{},{})".format(*(round(255 + (part - 255) * weight) for part in end))
