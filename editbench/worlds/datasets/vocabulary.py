"""The words that labels are written in, one vocabulary for tables, lists and arrays.

- A value is missing in every spelling that pandas knows (`pandas.read_csv`, `na_values`), and NaN
  in any case.
- `true` and `false`, `yes` and `no` mean 1 and 0, in any case.
- 0 beside -1 means "unspecified", as in MAAD-Face (Terhörst et al. 2021): neither "no" nor a class.
- Other values are classes: numbers by value (1, 01 and 1.0 are one), other words as they stand.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError

# Labels of pictures that have no class; every class is 0 or more.
MISSING = -1
UNSPECIFIED = -2
LACKING = ("with a missing label", "with an unspecified label")  # keys of counts
WHY = {MISSING: "missing", UNSPECIFIED: "unspecified (0 beside -1)"}

# pandas keeps its own list in a private module; a test compares the two.
MISSING_WORDS = frozenset(
    (
        *("", "NA", "N/A", "n/a", "<NA>", "#N/A", "#NA", "#N/A N/A"),
        *("NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
        *("NULL", "null", "None"),
    )
)
NO_YES = ("no", "yes")
BOOLEANS = {"false": 0.0, "no": 0.0, "true": 1.0, "yes": 1.0}
BINARY = ({-1.0, 1.0}, {0.0, 1.0})  # values of which the larger means that the attribute is present
SIGNED = {-1.0, 0.0, 1.0}


@dataclass(frozen=True)
class Column:
    """What the cells of one attribute say.

    Args:
        classes: their names, in the order of the numbers where they are numbers; fewer than two
            where the cells say nothing.
        ordered: whether they are numbers, of which there are more than two.
        labels: (n,) int64 class indices, MISSING or UNSPECIFIED.
    """

    classes: tuple[str, ...]
    ordered: bool
    labels: np.ndarray


def read_column(cells: Sequence[str]) -> Column:
    """The classes and the labels of one attribute.

    Args:
        cells: (n) texts.

    Returns:
        The column.

    Raises:
        EditbenchError: a number is infinite.
    """
    # A column has few different cells, and each is read once.
    words = {cell: unicodedata.normalize("NFC", cell.strip()) for cell in set(cells)}
    known = {word for word in words.values() if not is_missing(word)}
    meaning = _meanings(known)
    # The shortest writing comes last, and names the class.
    spelled: dict[float | str, str] = {}
    for word in sorted(known, key=lambda word: (-len(word), word)):
        spelled[meaning[word]] = word
    if is_signed(meaning.values()):
        del spelled[0.0]
    keys = sorted(spelled)  # type: ignore[type-var]
    index = {key: number for number, key in enumerate(keys)}
    label = dict.fromkeys(words, MISSING)
    for cell, word in words.items():
        if word in meaning:
            label[cell] = index.get(meaning[word], UNSPECIFIED)
    labels = np.array([label[cell] for cell in cells], np.int64)
    if set(keys) in BINARY:
        return Column(NO_YES, False, labels)
    ordered = len(keys) > 2 and not isinstance(keys[0], str)
    return Column(tuple(spelled[key] for key in keys), ordered, labels)


def keep_labelled(
    name_of: Callable[[int], str], attributes: Attributes, labels: np.ndarray
) -> tuple[np.ndarray, dict[str, int], list[tuple[str, str]]]:
    """Which pictures have all their labels.

    Args:
        name_of: names the picture of a row.
        attributes: of the labels.
        labels: (n, A) class indices, MISSING or UNSPECIFIED.

    Returns:
        (n,) bool; how many lack a label, by the reason, each picture counted once; and (name,
        reason) of each that does.
    """
    missing = (labels == MISSING).any(1)
    unspecified = (labels == UNSPECIFIED).any(1) & ~missing
    counts = {LACKING[0]: int(missing.sum()), LACKING[1]: int(unspecified.sum())}
    problems = []
    for i in np.flatnonzero(missing | unspecified).tolist():
        reasons = []
        for name, label in zip(attributes.names, labels[i]):
            if label in WHY:
                reasons.append(f"{name} is {WHY[label]}")
        problems.append((name_of(i), ", ".join(reasons)))
    return ~(missing | unspecified), counts, problems


def is_missing(word: str) -> bool:
    """Whether a cell says that its value is not known."""
    return word in MISSING_WORDS or word.lower() in ("nan", "+nan", "-nan")


def is_signed(values: Iterable[float | str]) -> bool:
    """Whether values are of -1, 0 and 1, and 0 stands beside -1, so that it cannot mean "no"."""
    found = set(values)
    return found <= SIGNED and {-1.0, 0.0} <= found


def _meanings(words: set[str]) -> dict[str, float | str]:
    """Each word as a number where all of them are numbers or booleans, else as a word."""
    numbers: dict[str, float] = {}
    flags: dict[str, float] = {}
    for word in words:
        value = number_of(word)
        if value is not None:
            numbers[word] = value
        elif word.lower() in BOOLEANS:
            flags[word] = BOOLEANS[word.lower()]
    # Beside -1, a "false" would become a 0, which means "unspecified" there.
    all_numbers = len(numbers) + len(flags) == len(words)
    if not all_numbers or (flags and not set(numbers.values()) <= {0.0, 1.0}):
        # "No" and "NO" are one class beside "maybe" too.
        return {word: word.lower() if word in flags else word for word in words}
    for word, number in numbers.items():
        if math.isinf(number):
            raise EditbenchError(f"'{word}' is not a label; write NA for an unknown value")
    return {**numbers, **flags}


def number_of(word: str) -> float | None:
    """The number that a cell is; None where it is none."""
    # Python reads 1_0 as 10; in a table it is a word.
    if "_" in word:
        return None
    try:
        return float(word)
    except ValueError:
        return None
