"""Labels of image files: CelebA-style attribute lists, CSV tables, subfolders as classes.

A label is the index of a class, -1 where it is not known. An attribute with one class is no
attribute and is left out.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import BadFile, EditbenchError, UnknownName
from editbench.worlds.datasets.source import printable

MOST_CLASSES = 256  # more different values than that are measurements: they need --bins
NO_YES = ("no", "yes")
SIGNS = ({-1.0, 1.0}, {0.0, 1.0})  # columns of which class 1 means that the attribute is present


@dataclass
class LabelTable:
    """Labels by file name.

    Args:
        attributes: of the labels.
        names: of the n files, as the list has them.
        classes: (n, A) int64, -1 where a cell is empty.
    """

    attributes: Attributes
    names: list[str]
    classes: np.ndarray

    def match(self, files: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Row of each file (-1: not listed), and the listed names that no file has.

        Files are posix paths below the folder. A list that names bare files finds them in
        subfolders too, where no two share a name.
        """
        by_name = {name: row for row, name in enumerate(self.names)}
        bare = Counter(PurePosixPath(file).name for file in files)
        rows = np.full(len(files), -1, np.int64)
        for i, file in enumerate(files):
            name = PurePosixPath(file).name
            rows[i] = by_name.get(file, -1)
            # Of two files of one name it cannot be known which one the list means.
            if rows[i] < 0 and bare[name] == 1:
                rows[i] = by_name.get(name, -1)
        found = set(rows.tolist())
        return rows, [name for row, name in enumerate(self.names) if row not in found]


def read_labels(
    path: Path, attributes: Sequence[str] | None = None, bins: int | None = None
) -> LabelTable:
    """Labels of a `.csv` table, or of an attribute list in any other file.

    Args:
        path: of the list.
        attributes: columns to take; None: all.
        bins: how many bins ordered attributes are joined into; None: as they are.

    Raises:
        BadFile: the file is missing, truncated or not of that form; the message has the line.
        UnknownName: no such column.
    """
    # utf-8-sig: spreadsheets put a byte-order mark before the first name.
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"{path}: not a readable list of labels ({error})") from error
    read = _csv if path.suffix.lower() == ".csv" else _attribute_list
    columns, names, cells = read(path, text)
    # Two labels for a file: which one holds cannot be known.
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise BadFile(f"{path}: '{twice}' is listed twice; leave one line")
    wanted = columns if attributes is None else list(attributes)
    for name in wanted:
        if name not in columns:
            raise UnknownName(f"column of {path.name}", name, columns)
    items = []
    labels = []
    for name in wanted:
        at = columns.index(name)
        found = _classes(path, name, [row[at] for row in cells], bins)
        # A column with one value cannot be learned.
        if found is not None:
            items.append(found[0])
            labels.append(found[1])
    if not items:
        raise BadFile(
            f"{path}: no column has two different values or more, so there is nothing to label"
        )
    return LabelTable(Attributes(items), names, np.stack(labels, 1))


def folder_labels(files: Sequence[str]) -> LabelTable:
    """The first folder of each path as its class; files beside the folders are not labelled."""
    inside = []
    folders = []
    for file in files:
        parts = PurePosixPath(file).parts
        if len(parts) > 1:
            inside.append(file)
            folders.append(parts[0])
    classes = sorted(set(folders))
    if len(classes) < 2:
        raise EditbenchError(
            f"subfolders as classes need two or more of them with images, found {classes}"
        )
    labels = np.array([[classes.index(name)] for name in folders], np.int64)
    item = Attribute("class", tuple(map(printable, classes)))
    return LabelTable(Attributes([item]), inside, labels)


def join_classes(
    item: Attribute, labels: np.ndarray, bins: int | None
) -> tuple[Attribute, np.ndarray]:
    """Neighbouring classes of an ordered attribute joined to runs: class c of K -> c * bins // K.

    Args:
        item: the attribute; one that is not ordered stays as it is.
        labels: (n,) classes, -1 where not known.
        bins: runs; None leaves the classes.
    """
    k = len(item.classes)
    if bins is not None and bins < 2:
        raise EditbenchError(f"--bins is 2 or more, got {bins}")
    if bins is None or not item.ordered or k <= bins:
        return item, labels
    # Runs differ in length by one class at most.
    runs = np.arange(k) * bins // k
    first = np.searchsorted(runs, range(bins))
    last = np.searchsorted(runs, range(bins), "right") - 1
    names = []
    for a, b in zip(first, last):
        name = item.classes[a]
        if a != b:
            name = f"{item.classes[a]}..{item.classes[b]}"
        names.append(name)
    joined = Attribute(item.name, tuple(names), ordered=bins > 2)
    return joined, np.where(labels < 0, -1, runs[labels])


def choose(
    attributes: Attributes,
    labels: np.ndarray,
    names: Sequence[str] | None = None,
    bins: int | None = None,
) -> tuple[Attributes, np.ndarray]:
    """Attributes by name, binned; those that are constant in the data are left out.

    Args:
        attributes: of the labels.
        labels: (n, A) classes.
        names: attributes to take; None: all.
        bins: how many bins ordered attributes are joined into; None: as they are.

    Raises:
        UnknownName: an attribute that the data do not have.
        EditbenchError: none of them varies.
    """
    items = []
    columns = []
    for name in attributes.names if names is None else names:
        item, column = join_classes(attributes[name], labels[:, attributes.index(name)], bins)
        if len(np.unique(column)) > 1:
            items.append(item)
            columns.append(column)
    if not items:
        raise EditbenchError(
            f"none of the attributes {', '.join(names or attributes.names)} varies in the data"
        )
    return Attributes(items), np.stack(columns, 1)


Cells = tuple[list[str], list[str], list[list[str]]]  # column names, file names, cells of each file


def _attribute_list(path: Path, text: str) -> Cells:
    """The form of list_attr_celeba.txt: number of files; names; then `file -1 1 ...` a line."""
    lines = text.splitlines()
    if len(lines) < 3 or not lines[0].strip().isdecimal():
        raise BadFile(
            f"{path}: an attribute list begins with the number of files and a line of names; "
            "a table with commas must end in .csv"
        )
    columns = lines[1].split()
    names = []
    cells = []
    for number, line in enumerate(lines[2:], 3):
        words = line.split()
        if not words:
            continue
        if len(words) != len(columns) + 1:
            raise BadFile(
                f"{path}, line {number}: {len(words) - 1} values for {len(columns)} attributes"
            )
        if not set(words[1:]) <= {"-1", "0", "1"}:
            raise BadFile(
                f"{path}, line {number}: values are -1 (or 0) and 1, got '{line[:60].strip()}'"
            )
        names.append(words[0])
        # Copies of CelebA's list write 0 for -1; both mean that the attribute is absent.
        cells.append(["-1" if word == "0" else word for word in words[1:]])
    if len(names) != int(lines[0]):
        raise BadFile(
            f"{path}: the first line says {lines[0].strip()} files, the list has {len(names)}; "
            "copy it again, or correct the number"
        )
    return columns, names, cells


def _csv(path: Path, text: str) -> Cells:
    """A table with a header; the first column names the file."""
    # Strict: a quote that is not closed would otherwise swallow the rest of the file.
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise BadFile(f"{path}: not a readable CSV table ({error})") from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise BadFile(
            f"{path}: a table of labels has a header such as file,smile,age and a line a file"
        )
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]):
            raise BadFile(
                f"{path}, row {number}: {len(row)} cells where the header has {len(rows[0])}"
            )
    if not all(name.strip() for name in rows[0][1:]):
        raise BadFile(f"{path}: a column has no name in the header")
    return (
        [name.strip() for name in rows[0][1:]],
        [row[0].strip() for row in rows[1:]],
        [row[1:] for row in rows[1:]],
    )


def _classes(
    path: Path, name: str, cells: list[str], bins: int | None
) -> tuple[Attribute, np.ndarray] | None:
    """Attribute and labels (n,) of one column; None where all its values are one."""
    cells = [cell.strip() for cell in cells]
    values = sorted(set(cells) - {""})
    ordered = all(map(_is_number, values))
    # 1, 01 and 1.0 are one class.
    meaning: dict[str, float | str] = {}
    for value in values:
        meaning[value] = float(value) if ordered else value
    # The shortest writing comes last, and names the class.
    spelled: dict[float | str, str] = {}
    for value in sorted(values, key=len, reverse=True):
        spelled[meaning[value]] = value
    keys = sorted(spelled)  # type: ignore[type-var]
    if len(keys) < 2:
        return None
    index = {key: i for i, key in enumerate(keys)}
    labels = np.full(len(cells), -1, np.int64)
    for i, cell in enumerate(cells):
        if cell:
            labels[i] = index[meaning[cell]]
    known = NO_YES if set(index) in SIGNS else tuple(spelled[key] for key in keys)
    item, labels = join_classes(Attribute(name, known, ordered and len(index) > 2), labels, bins)
    # After joining: bins are the remedy.
    if len(item.classes) > MOST_CLASSES:
        fix = "choose other columns with --attributes"
        if ordered:
            fix = "join neighbouring ones with --bins"
        raise BadFile(f"{path}: column '{name}' has {len(index)} different values; {fix}")
    return item, labels


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
