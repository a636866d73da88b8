"""Labels of image files: CelebA-style attribute lists, CSV tables, subfolders as classes.

A label is the index of a class, or negative if there is none; `vocabulary` defines the words. A
column with one class is no attribute and is left out.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import BadFile, EditbenchError, UnknownName
from editbench.base.text import path_key, printable, read_text
from editbench.worlds.datasets.vocabulary import BOOLEANS, is_missing, number_of, read_column

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # of image files
MOST_CLASSES = 256  # more different values than that are measurements: they need --bins
ONE_VALUE = "has one value, so there is nothing to learn"
DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}

Problem = tuple[str, str]  # a name, and why it was left out


@dataclass
class LabelTable:
    """Labels by file name.

    Args:
        attributes: of the labels.
        names: of the n files, as the list has them.
        classes: (n, A) int64 class indices; MISSING or UNSPECIFIED where there is none.
        left_out: columns that are no attribute, and why.
    """

    attributes: Attributes
    names: list[str]
    classes: np.ndarray
    left_out: list[Problem] = field(default_factory=list)

    def match(self, files: Sequence[str]) -> tuple[np.ndarray, list[Problem]]:
        """Find the row of each file.

        A name is taken as it stands, then as `path_key` writes it, then as a bare file name in any
        subfolder. The looser readings count only where one file and one line have them.

        Args:
            files: (m) posix paths below the folder.

        Returns:
            (m,) int64 rows, -1 where a file is not listed; and the files and the names without a
            partner, each with the reason.
        """
        rows = np.full(len(files), -1, np.int64)
        by_name = {name: row for row, name in enumerate(self.names)}
        for i, file in enumerate(files):
            rows[i] = by_name.get(file, -1)
        listed = [path_key(name) for name in self.names]
        paths = [path_key(file) for file in files]
        bare = [PurePosixPath(path).name for path in paths]
        # If two files have the same name, it is unknown which one the list means.
        ambiguous = _pair(rows, paths, listed) | _pair(rows, bare, listed)
        problems = []
        for i in np.flatnonzero(rows < 0).tolist():
            problem = "the labels do not name it"
            if {paths[i], bare[i]} & ambiguous:
                problem = f"the labels name '{printable(bare[i])}', which may be another file"
            problems.append((files[i], problem))
        found = set(rows.tolist())
        for row, name in enumerate(self.names):
            if row not in found:
                problem = "listed, but there is no such file"
                if listed[row] in ambiguous:
                    problem = "listed, but several files have that name: write their folders"
                problems.append((name, problem))
        return rows, problems


def _pair(rows: np.ndarray, files: Sequence[str], listed: Sequence[str]) -> set[str]:
    """Set the rows of files without one, by comparing keys.

    Args:
        rows: (m,) row of each file, -1 where there is none; filled in.
        files: (m) keys of the files.
        listed: (n) keys of the rows.

    Returns:
        The keys that several files or several rows have.
    """
    free = set(range(len(listed))) - set(rows.tolist())
    by_key = {listed[row]: row for row in free}
    several = {key for keys in (files, listed) for key, n in Counter(keys).items() if n > 1}
    several &= set(listed)
    for i in np.flatnonzero(rows < 0).tolist():
        if files[i] not in several:
            rows[i] = by_key.get(files[i], -1)
    return several


def read_labels(
    path: Path, attributes: Sequence[str] | None = None, bins: int | None = None
) -> LabelTable:
    """Labels of a `.csv` table, or of an attribute list in any other file.

    Args:
        path: of the list.
        attributes: columns to take; None: all that have two values or more.
        bins: how many bins ordered attributes are joined into; None: as they are.

    Raises:
        BadFile: the file is missing, truncated, in another encoding or not of that form, or a
            column that was asked for has one value; the message has the line.
        UnknownName: no such column.
    """
    text = read_text(path)
    read = _csv if path.suffix.lower() == ".csv" else _attribute_list
    columns, names, cells = read(path, text)
    columns = [unicodedata.normalize("NFC", name) for name in columns]
    _refuse_twice(path, "column", columns)
    # If a file is listed twice, it is unknown which labels are right.
    _refuse_twice(path, "file", [PurePosixPath(name).as_posix() for name in names])
    wanted = columns
    if attributes is not None:
        wanted = [unicodedata.normalize("NFC", name) for name in attributes]
    for name in wanted:
        if name not in columns:
            raise UnknownName(f"column of {path.name}", name, columns)
    if read is _attribute_list:
        _refuse_mixed(path, columns, wanted, cells)
    items = []
    labels = []
    left_out = []
    for name in wanted:
        at = columns.index(name)
        found = _classes(path, name, [row[at] for row in cells], bins)
        if found is not None:
            items.append(found[0])
            labels.append(found[1])
        elif attributes is not None:
            raise BadFile(f"{path}: column '{name}' {ONE_VALUE}; leave it out of --attributes")
        else:
            left_out.append((f"column '{name}'", ONE_VALUE))
    if not items:
        raise BadFile(
            f"{path}: no column has two or more different values, so there is nothing to label"
        )
    return LabelTable(Attributes(items), names, np.stack(labels, 1), left_out)


def _refuse_twice(path: Path, what: str, names: Sequence[str]) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise BadFile(f"{path}: the {what} '{twice}' is listed twice; remove one of them")


def folder_labels(files: Sequence[str]) -> LabelTable:
    """The first folder of each path as its class; files outside of folders get no label."""
    inside = []
    folders = []
    for file in files:
        parts = PurePosixPath(file).parts
        if len(parts) > 1:
            inside.append(file)
            # One name in two Unicode forms is one class.
            folders.append(path_key(parts[0]))
    classes = sorted(set(folders))
    if len(classes) < 2:
        raise EditbenchError(
            f"classes from subfolders need two or more subfolders with images, found {classes}"
        )
    labels = np.array([[classes.index(name)] for name in folders], np.int64)
    item = Attribute("class", tuple(classes))
    return LabelTable(Attributes([item]), inside, labels)


def join_classes(
    item: Attribute, labels: np.ndarray, bins: int | None
) -> tuple[Attribute, np.ndarray]:
    """Join neighbouring classes of an ordered attribute: class c of K becomes c * bins // K.

    Args:
        item: the attribute; one that is not ordered stays as it is.
        labels: (n,) classes, below 0 where not known.
        bins: number of joined classes; None leaves the classes unchanged.
    """
    k = len(item.classes)
    if bins is not None and bins < 2:
        raise EditbenchError(f"--bins must be 2 or more, got {bins}")
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
    return joined, np.where(labels < 0, labels, runs[labels])


def choose_attributes(
    attributes: Attributes,
    labels: np.ndarray,
    names: Sequence[str] | None = None,
    bins: int | None = None,
) -> tuple[Attributes, np.ndarray]:
    """Attributes by name, binned; unnamed ones that are constant in the data are left out.

    Args:
        attributes: of the labels.
        labels: (n, A) classes.
        names: attributes to take; None: all.
        bins: how many bins ordered attributes are joined into; None: as they are.

    Raises:
        UnknownName: an attribute that the data do not have.
        EditbenchError: none of them varies, or a named one does not.
    """
    items = []
    columns = []
    for name in attributes.names if names is None else names:
        item, column = join_classes(attributes[name], labels[:, attributes.index(name)], bins)
        if len(np.unique(column)) > 1:
            items.append(item)
            columns.append(column)
        elif names is not None:
            raise EditbenchError(
                f"attribute '{name}' {ONE_VALUE} in the data; leave it out of --attributes"
            )
    if not items:
        raise EditbenchError(
            f"none of the attributes {', '.join(attributes.names)} varies in the data"
        )
    return Attributes(items), np.stack(columns, 1)


Cells = tuple[list[str], list[str], list[list[str]]]  # column names, file names, cells of each file


def _attribute_list(path: Path, text: str) -> Cells:
    """The form of list_attr_celeba.txt: number of files; names; then `file -1 1 ...` a line."""
    # Not splitlines: a file name may hold what Unicode takes for the end of a line.
    lines = list(io.StringIO(text, newline=None))
    if len(lines) < 3 or not lines[0].strip().isdecimal():
        raise BadFile(
            f"{path}: an attribute list begins with the number of files and a line of names; "
            f"a table must end in .csv and have commas{_separated(text)}"
        )
    columns = lines[1].split()
    names = []
    cells = []
    values: set[str] = set()  # checked already, since a list has millions of few different ones
    for number, line in enumerate(lines[2:], 3):
        if not line.strip():
            continue
        # From the right, since a file name may hold blanks.
        words = line.rsplit(None, len(columns))
        if len(words) != len(columns) + 1 or _is_value(words[0].split()[-1]):
            count = len([word for word in line.split() if _is_value(word)])
            raise BadFile(f"{path}, line {number}: {count} values for {len(columns)} attributes")
        for word in words[1:]:
            if word not in values and not _is_value(word):
                raise BadFile(
                    f"{path}, line {number}: values are -1 (or 0), 1 and NA, got '{word}' in "
                    f"'{line[:60].strip()}'"
                )
            values.add(word)
        names.append(words[0])
        cells.append(words[1:])
    if len(names) != int(lines[0]):
        raise BadFile(
            f"{path}: the first line says {lines[0].strip()} files, the list has {len(names)}; "
            "copy it again, or correct the number"
        )
    return columns, names, cells


def _refuse_mixed(
    path: Path, columns: list[str], wanted: list[str], cells: list[list[str]]
) -> None:
    """Refuse an attribute with 0 and without -1 in a list where another one has -1.

    One list has one convention, so that a 0 may mean "unspecified" there; it may also mean "no".
    """
    values = {}
    for at, name in enumerate(columns):
        # Each different word is read once, since a list has millions of words.
        values[name] = {number_of(word) for word in {row[at] for row in cells}}
    if not any(-1 in found for found in values.values()):
        return
    for name in wanted:
        if 0 in values[name] and -1 not in values[name]:
            raise BadFile(
                f"{path}: '{name}' has 0 and no -1, and other attributes have -1, so that 0 may "
                "mean 'no' or 'unspecified': write -1 for 'no' and NA for 'unspecified', or leave "
                "the attribute out with --attributes"
            )


def _is_value(word: str) -> bool:
    """Whether a word of an attribute list is a label."""
    return number_of(word) in (-1, 0, 1) or is_missing(word) or word.lower() in BOOLEANS


def _csv(path: Path, text: str) -> Cells:
    """A table with a header; the first column names the file."""
    # Strict: a quote that is not closed would otherwise swallow the rest of the file.
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise BadFile(f"{path}: not a readable CSV table ({error})") from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise BadFile(
            f"{path}: a table of labels has a header such as file,smile,age and one line per file"
            f"{_separated(text)}"
        )
    # Without a header the first file would be lost, and its labels would name the attributes.
    first = rows[0][0].strip()
    if first.lower().endswith(SUFFIXES):
        raise BadFile(
            f"{path}: the first line names the file '{first}', so the table has no header: begin "
            "it with a line of names, such as file,smile,age"
        )
    header = [name.strip() for name in rows[0][1:]]
    if not all(header):
        raise BadFile(f"{path}: a column has no name in the header")
    names = []
    cells = []
    for number, row in enumerate(rows[1:], 2):
        # Spreadsheets write rows of commas below the last one that was filled in.
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(rows[0]):
            raise BadFile(
                f"{path}, row {number}: {len(row)} cells where the header has {len(rows[0])}"
            )
        if not row[0].strip():
            raise BadFile(f"{path}, row {number}: names no file")
        names.append(row[0])
        cells.append(row[1:])
    return header, names, cells


def _separated(text: str) -> str:
    """What separates the first line in place of commas, for a message; '' where nothing does."""
    first = text.splitlines()[0] if text else ""
    for mark, name in DELIMITERS.items():
        if mark in first:
            return f"; this file is separated by {name} ('{mark}'): save it with commas"
    return ""


def _classes(
    path: Path, name: str, cells: list[str], bins: int | None
) -> tuple[Attribute, np.ndarray] | None:
    """Attribute and labels (n,) of one column; None where all its values are one."""
    try:
        column = read_column(cells)
    except EditbenchError as error:
        raise BadFile(f"{path}: column '{name}': {error}") from error
    if len(column.classes) < 2:
        return None
    whole = Attribute(name, column.classes, column.ordered)
    item, labels = join_classes(whole, column.labels, bins)
    # After joining: bins are the remedy.
    if len(item.classes) > MOST_CLASSES:
        fix = "choose other columns with --attributes"
        if column.ordered:
            fix = "join neighbouring ones with --bins"
        raise BadFile(f"{path}: column '{name}' has {len(whole.classes)} different values; {fix}")
    return item, labels
