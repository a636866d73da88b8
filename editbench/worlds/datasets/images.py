"""A folder of images as a data set: found recursively, decoded on a few threads.

A picture is rotated by its EXIF orientation, put on white if it is transparent, converted to 8-bit
RGB (16-bit greys keep their upper byte, CMYK is converted by Pillow), cropped to the central square,
and resized with Pillow's LANCZOS filter. Files that cannot be read are reported and left out.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile, EditbenchError, no_such
from editbench.base.files import digest, file_sha256
from editbench.base.text import printable
from editbench.worlds.datasets.labels import SUFFIXES, LabelTable, folder_labels, read_labels
from editbench.worlds.datasets.source import Block, Source
from editbench.worlds.datasets.vocabulary import keep_labelled

# Pillow's other readers, such as that of EPS, are not used, whatever the suffix of a file.
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 89_478_485  # of one file, Pillow's own bound: 256 MiB decoded in each thread
WHITE = 255  # colour behind transparent pixels
FOLDERS = "folders"


class Unreadable(Exception):
    """Why one file is left out."""


def load_picture(path: Path, resolution: int) -> tuple[np.ndarray, bool]:
    """Decode one file.

    Args:
        path: of the file.
        resolution: height and width of the result.

    Returns:
        (resolution, resolution, 3) uint8, and whether the picture was smaller.

    Raises:
        Unreadable: says what is wrong.
    """
    try:
        if path.stat().st_size == 0:
            raise Unreadable("empty file")
        with Image.open(path, formats=FORMATS) as image:
            # Pillow only warns below twice its bound.
            if image.width * image.height > MAX_PIXELS:
                raise Unreadable(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
            image.load()
            # The shorter side counts, since the central square has it.
            return fit_picture(image, resolution), min(image.size) < resolution
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        raise Unreadable("not a PNG, JPEG or WebP image") from error
    except Image.DecompressionBombError as error:
        raise Unreadable(f"more than {MAX_PIXELS} pixels") from error
    except Exception as error:  # a decoder may stumble over damaged bytes in any way
        raise Unreadable(" ".join(f"{type(error).__name__}: {error}".split())) from error


def fit_picture(image: Image.Image, resolution: int) -> np.ndarray:
    """Make any Pillow image upright, opaque, RGB and square.

    Args:
        image: of any mode and size.
        resolution: height and width of the result, to which the central square is resized.

    Returns:
        (resolution, resolution, 3) uint8.
    """
    # Cameras store pictures as the sensor sees them, and note the orientation in the EXIF data.
    image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips 16 bits to 8 instead of keeping the upper byte.
        deep = np.asarray(image).astype(np.uint32)
        grey = (deep >> 8).clip(0, 255).astype(np.uint8)
        # The grey that a PNG declares transparent has 16 bits too, and would be lost here.
        grey[deep == image.info.get("transparency", -1)] = WHITE
        image = Image.fromarray(grey)
    colour = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(colour, tuple) and max(colour) > WHITE:
        # Of 16-bit colours Pillow keeps the upper bytes, but of the transparent one both.
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (WHITE,) * 4), image)
    image = image.convert("RGB")
    side = min(image.size)
    left = (image.width - side) // 2
    top = (image.height - side) // 2
    if image.size != (side, side):
        image = image.crop((left, top, left + side, top + side))
    if side != resolution:
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(image)


def scan(folder: Path) -> tuple[list[tuple[str, int, int]], dict[str, int]]:
    """Find the image files below a folder.

    Hidden files and folders are skipped; links to folders are not followed.

    Args:
        folder: where to look.

    Returns:
        (posix path, size, time in ns) of each image, sorted by path; and how many entries were
        skipped because they are hidden or of other kinds.
    """
    found: list[tuple[str, int, int]] = []
    others = 0
    hidden = 0
    # A list instead of recursion: folders may be nested deeply.
    waiting = [(folder, "")]
    while waiting:
        here, prefix = waiting.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    hidden += 1
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((Path(entry.path), f"{prefix}{entry.name}/"))
                elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                    about = entry.stat()
                    found.append((prefix + entry.name, about.st_size, about.st_mtime_ns))
                else:
                    # Counted, so that a folder of the wrong kind shows in the report.
                    others += 1
    return sorted(found), {"of other kinds": others, "hidden": hidden}


class ImageFolder(Source):
    """The images below a folder, with labels or without.

    Args:
        labels: a CSV table or attribute list (editbench.worlds.datasets.labels), "folders" for
            subfolders as classes, or None. Files that the list does not name, or names without a
            label, are counted and left out.
        attributes: columns to take; None: all.
        bins: how many bins ordered attributes are joined into; None: as they are.
        threads: how many files are decoded at once.

    Raises:
        BadFile: no such folder, no image in it, unreadable labels, or labels of other files.
    """

    def __init__(
        self,
        folder: Path,
        labels: Path | str | None = None,
        attributes: Sequence[str] | None = None,
        bins: int | None = None,
        threads: int = 4,
    ) -> None:
        if not folder.is_dir():
            raise BadFile(f"{folder}: {no_such('folder', folder)}")
        if labels in (None, FOLDERS) and (attributes is not None or bins is not None):
            raise EditbenchError(
                "--attributes and --bins choose among the labels of a file: give --labels FILE"
            )
        if threads < 1:
            raise EditbenchError(f"--threads must be 1 or more, got {threads}")
        try:
            files, passed = scan(folder)
        except OSError as error:
            raise BadFile(f"{folder}: cannot be read ({error.strerror})") from error
        if not files:
            raise BadFile(f"{folder}: no image ({', '.join(SUFFIXES)}) in it or below it")
        self.folder = folder
        self.threads = threads
        self.resolution = None
        self.counts = {"files": len(files)} | passed
        self.problems: list[tuple[str, str]] = []
        self.attributes: Attributes | None = None
        self._labels: np.ndarray | None = None
        if labels is not None:
            files = self._label(files, labels, attributes, bins)
        self.files = [name for name, _, _ in files]
        # Names, sizes and times identify the pictures, since reading them all would take as long as
        # packing.
        listed = hashlib.sha256("\n".join(map(repr, files)).encode())
        by_file = None
        if labels is not None and labels != FOLDERS:
            by_file = file_sha256(Path(labels))
        self.identity = {
            "kind": "images",
            "files": listed.hexdigest(),
            "labels": by_file or labels,
            "classes": digest(self.attributes.as_config()) if self.attributes else None,
        }

    def _label(
        self,
        files: list[tuple[str, int, int]],
        labels: Path | str,
        attributes: Sequence[str] | None,
        bins: int | None,
    ) -> list[tuple[str, int, int]]:
        """Read the labels of the files, and return the files that have all labels."""
        names = [name for name, _, _ in files]
        table: LabelTable
        if labels == FOLDERS:
            table = folder_labels(names)
        else:
            table = read_labels(Path(labels), attributes, bins)
        rows, problems = table.match(names)
        listed = np.flatnonzero(rows >= 0)
        if not len(listed):
            raise BadFile(
                f"{labels}: names none of the {len(files)} images of {self.folder} (the first is "
                f"'{names[0]}', the first listed '{table.names[0]}')"
            )
        # Pictures with only some of the labels are left out, since the losses need all of them.
        labelled, counts, lacking = keep_labelled(
            lambda i: names[listed[i]], table.attributes, table.classes[rows[listed]]
        )
        keep = listed[labelled]
        if not len(keep):
            name, reason = lacking[0]
            raise BadFile(
                f"{labels}: none of the {len(listed)} listed images has all its labels (of '{name}' "
                f"{reason}): choose fewer with --attributes"
            )
        unlisted = len(files) - len(listed)
        self.counts |= {"not listed": unlisted, "listed without file": len(problems) - unlisted}
        self.counts |= counts | {"columns of one value": len(table.left_out)}
        for name, reason in problems + lacking + table.left_out:
            self.problems.append((printable(name), printable(reason)))
        self.attributes = table.attributes
        self._labels = table.classes[rows[keep]]
        return [files[i] for i in keep]

    def __len__(self) -> int:
        return len(self.files)

    def labels(self) -> np.ndarray | None:
        return self._labels

    def read(self, start: int, stop: int, resolution: int) -> Block:
        """Decode files start..stop-1; the result does not depend on the number of threads."""
        pixels = np.empty((stop - start, resolution, resolution, 3), np.uint8)
        enlarged = np.zeros(stop - start, bool)

        def load(i: int) -> str | None:
            try:
                path = self.folder / self.files[start + i]
                pixels[i], enlarged[i] = load_picture(path, resolution)
            except Unreadable as problem:
                return str(problem)
            return None

        # Pillow releases the interpreter's lock while it decodes.
        pool = ThreadPoolExecutor(self.threads)
        with warnings.catch_warnings():
            # Warnings about large files or unusual EXIF data; problems are in the report.
            warnings.simplefilter("ignore")
            try:
                reasons = list(pool.map(load, range(stop - start)))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        good = []
        problems = []
        for i, reason in enumerate(reasons):
            if reason is None:
                good.append(i)
            else:
                problems.append((printable(self.files[start + i]), printable(reason)))
        kept = np.array(good, np.int64)
        # Indexing copies a whole block, which is rarely needed.
        if len(kept) < len(pixels):
            pixels = pixels[kept]
        return Block(pixels, start + kept, problems, int(enlarged.sum()))
