"""How an inversion is shown: a sheet of originals and reconstructions, a page, and a table."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from rich.markup import escape
from rich.table import Table

from editbench.base.files import write_atomic
from editbench.base.progress import results_console
from editbench.inversion.store import Inversion

PAGE = "index.html"  # written last, so that a folder that has it is complete
COLUMNS = 16
SMALLEST = 64  # least side of an image on the sheet, in pixels
SHARES = (
    ("kept", "class kept"),
    ("real_true", "image, as judged, true"),
    ("true", "reconstruction true"),
)


def write_page(inversion: Inversion) -> Path:
    """Write reconstructions.png and index.html to the inversion's folder."""
    sheet = _sheet(inversion)
    if sheet is not None:
        write_atomic(inversion.folder / "reconstructions.png", sheet)
    loader = FileSystemLoader(Path(__file__).parent)
    # Escaped, since names of the user's files and attributes may have HTML's characters.
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("page.html").render(
        meta=inversion.meta,
        figures=figures(inversion),
        n=len(inversion),
        shares=SHARES,
        summary=inversion.summary().to_dict("records"),
        known=bool((inversion.truth >= 0).any()),
        percent=_percent,
        sheet=None if sheet is None else base64.b64encode(sheet).decode(),
    )
    path = inversion.folder / PAGE
    write_atomic(path, page)
    return path


def figures(inversion: Inversion) -> list[tuple[str, str]]:
    """Reconstruction errors as (name, text)."""
    table = inversion.table
    found = [
        ("PSNR, mean", f"{table['psnr'].mean():.2f} dB"),
        ("PSNR, lowest", f"{table['psnr'].min():.2f} dB"),
        ("mean squared error, of [-1, 1]", f"{table['mse'].mean():.5f}"),
        (
            f"perceptual distance ({inversion.meta['perceptual']}), mean",
            f"{table['perceptual'].mean():.4f}",
        ),
    ]
    if table["noise_mse"].notna().any():
        found.append(
            ("mean squared error with the optimised noise", f"{table['noise_mse'].mean():.5f}")
        )
    return found


def print_inversion(inversion: Inversion) -> None:
    """Print the inversion's figures and attributes on standard output."""
    out = results_console()
    spec = inversion.meta["spec"]
    out.print(
        f"{inversion.meta['images']}: {len(inversion)} inverted into {inversion.space.value}, "
        f"{spec['schedule']['steps']} steps, noise {spec['noise']}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for name, reason in list(inversion.skipped.items())[:10]:
        out.print(f"  skipped {name}: {reason}", markup=False, highlight=False, soft_wrap=True)
    if len(inversion.skipped) > 10:
        out.print(f"  and {len(inversion.skipped) - 10} more (inversion.json lists them)")
    for name, text in figures(inversion):
        out.print(f"  {name}: {text}", markup=False, highlight=False)
    known = bool((inversion.truth >= 0).any())
    shares = SHARES if known else SHARES[:1]
    table = Table("attribute", *(title for _, title in shares), box=None)
    for row in inversion.summary().to_dict("records"):
        table.add_row(escape(row["attribute"]), *(_percent(row[key]) for key, _ in shares))
    out.print(table)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f} %"


def _sheet(inversion: Inversion) -> bytes | None:
    """PNG of the first images, each above its reconstruction; None if none was stored."""
    originals, made = inversion.pictures()
    if not len(originals):
        return None
    originals, made = originals[:COLUMNS], made[:COLUMNS]
    # A whole factor, so that every pixel becomes a square.
    zoom = max(1, SMALLEST // originals.shape[-1])
    rows = [np.concatenate(list(part.permute(0, 2, 3, 1).numpy()), 1) for part in (originals, made)]
    page = np.concatenate(rows, 0).repeat(zoom, 0).repeat(zoom, 1)
    out = io.BytesIO()
    # Pillow takes grey images without an axis of channels.
    Image.fromarray(page[:, :, 0] if page.shape[2] == 1 else page).save(out, "PNG")
    return out.getvalue()
