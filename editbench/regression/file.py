"""The baseline file: JSON with sorted keys and one line per row.

Values that several runs share are written once, under their hash. The samples of a number are one
text, with a value for each start of the run in order: '0110-' if all are 0 or 1, and otherwise
numbers separated by spaces. '-' stands for a start without a value. Ids of starts are stored as the
first id and the difference of each id from the one before.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from editbench.base.errors import BadFile
from editbench.base.files import CHECKSUM, digest, write_atomic
from editbench.regression.pins import (
    NAN,
    SAMPLE_DIGITS,
    Pin,
    PinnedRun,
    key_fields,
    pinned_key,
)
from editbench.regression.tolerance import RULE

NO_VALUE = "-"  # a start without a value
LARGEST_WHOLE = 1e9  # whole floats below it are written as integers
KIND = "editbench baseline"  # distinguishes the file from other JSON
FORMAT = 2  # 1 had keys such as 'ad@0.125' instead of fields
# Values of a row, after the fields of its key. The file lists them, so that a change is noticed.
COLUMNS = ["value", "low", "high", "count", "version", "note", "tolerance", "origin"]
# Fields of a run that differ between runs and are written as they are.
PLAIN = ("method", "attribute", "seed", "status", "reason", "run_id", "source")


@dataclass(frozen=True)
class Baseline:
    """Pinned runs, and the reason why they are pinned.

    Args:
        runs: sorted by label.
        reason: why these numbers are pinned.
        history: reasons of the earlier versions, oldest first.
        made_with: versions and hardware.
        spread: folder -> the number of runs, and what was varied between them; {} if the tolerances
            are defaults.
    """

    runs: list[PinnedRun]
    reason: str
    history: list[str] = field(default_factory=list)
    made_with: dict = field(default_factory=dict)
    spread: dict = field(default_factory=dict)


class SharedValues:
    """Values that several runs may share, each written once under its hash."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Any]] = {"settings": {}, "methods": {}, "starts": {}}

    def add(self, table: str, value: Any) -> str:
        """Write a value to a table under its hash.

        Args:
            table: 'settings', 'methods' or 'starts'.
            value: plain values that JSON can hold.

        Returns:
            The key of the value in the table.
        """
        # Eight hexadecimal digits are enough to distinguish a few hundred values.
        key = digest(value, 8)
        self.tables[table][key] = value
        return key


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline with its checksum.

    Args:
        path: of the file; an earlier file is replaced.
        baseline: what to write.
    """
    shared = SharedValues()
    runs = {run.label: _run_as_json(run, shared) for run in baseline.runs}
    whole = {
        "kind": KIND,
        "format": FORMAT,
        "columns": COLUMNS,
        "reason": baseline.reason,
        "runs": runs,
        "history": baseline.history,
        "made_with": baseline.made_with,
        "tolerance": {"rule": RULE, "spread": baseline.spread},
        **shared.tables,
    }
    # Without a checksum, a digit that was changed by accident would be taken for a measurement.
    whole[CHECKSUM] = digest(whole, 64)
    write_atomic(path, _lines(whole) + "\n")


def _run_as_json(run: PinnedRun, shared: SharedValues) -> dict[str, Any]:
    """One run as an object of the file. Values that runs may share are added to `shared`."""
    values: dict[str, Any] = {}
    for name in PLAIN:
        values[name] = getattr(run, name)
    values["options"] = shared.add("methods", run.options)
    values["setting"] = shared.add("settings", run.setting)
    values["changed"] = run.changed
    rows = []
    for key, pin in run.rows.items():
        row: list[Any] = [key_fields(key)]
        for name in COLUMNS:
            row.append(_plain(getattr(pin, name)))
        rows.append(row)
    values["rows"] = rows
    # Differences of ids are short, and a file under version control should be small.
    steps = np.diff(run.starts, prepend=0)
    values["starts"] = shared.add("starts", " ".join(map(str, steps)))
    samples = []
    for key, sample in run.samples.items():
        samples.append([key_fields(key), _pack(sample)])
    values["samples"] = samples
    return values


def read_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Args:
        path: of the file.

    Returns:
        The baseline, its runs sorted by label.

    Raises:
        BadFile: the file is missing, damaged, or of another kind or format.
    """
    whole = _read_checked(path)
    # The checksum detects only accidents. A file that was written by hand or by another version may
    # lack a part although its checksum is right.
    try:
        columns = whole["columns"]
        if columns != COLUMNS:
            raise ValueError(f"columns are {columns}")
        runs = []
        for label in sorted(whole["runs"]):
            runs.append(_run_from_json(label, whole))
        return Baseline(
            runs=runs,
            reason=whole["reason"],
            history=whole["history"],
            made_with=whole["made_with"],
            spread=whole["tolerance"]["spread"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(
            f"{path} is a baseline with a damaged part ({type(error).__name__}: {error}); take it "
            "back from version control, or pin the runs again with `editbench baseline`"
        ) from error


def _run_from_json(label: str, whole: dict) -> PinnedRun:
    """One run of the file, with the values that it shares with others."""
    run = whole["runs"][label]
    starts = np.cumsum(np.array(whole["starts"][run["starts"]].split(), np.int64))
    rows = {}
    for fields, *values in run["rows"]:
        rows[pinned_key(fields)] = _pin_of(values)
    samples = {}
    for fields, text in run["samples"]:
        samples[pinned_key(fields)] = _unpack(text, len(starts))
    return PinnedRun(
        label,
        **{name: run[name] for name in PLAIN},
        options=whole["methods"][run["options"]],
        setting=whole["settings"][run["setting"]],
        changed=run["changed"],
        rows=rows,
        starts=starts,
        samples=samples,
    )


def _read_checked(path: Path) -> dict:
    """The object of a baseline file. Raises BadFile if its kind, format or checksum is wrong."""
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadFile(
            f"the baseline '{path}' does not exist; `editbench baseline RUNS --out {path}` makes it"
        ) from error
    except IsADirectoryError as error:
        raise BadFile(
            f"the baseline '{path}' is a folder; name the file that `editbench baseline` wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise BadFile(
            f"the baseline '{path}' is not a complete JSON file ({error}); take it back from version "
            "control, or pin the runs again with `editbench baseline`"
        ) from error
    if not isinstance(whole, dict) or whole.get("kind") != KIND:
        raise BadFile(
            f"'{path}' is JSON but not a baseline; `editbench baseline RUNS --out FILE` makes one"
        )
    # Before the checksum, which another format may compute differently or lack.
    if whole.get("format") != FORMAT:
        raise BadFile(
            f"the baseline '{path}' has format {whole.get('format')}, but this editbench reads "
            f"{FORMAT}; pin the runs again"
        )
    expected = whole.pop(CHECKSUM, None)
    if expected != digest(whole, 64):
        raise BadFile(
            f"{path} is a baseline with a damaged part (its checksum differs); take it back from "
            "version control, or pin the runs again with `editbench baseline`"
        )
    return whole


def _pin_of(values: list) -> Pin:
    """The pin of a row's values, which are in the order of COLUMNS."""
    # strict: a row with a missing value would otherwise lose its last columns.
    cells = dict(zip(COLUMNS, values, strict=True))

    def number(name: str) -> float:
        # JSON has no NaN, so null is written instead.
        if cells[name] is None:
            return NAN
        return float(cells[name])

    return Pin(
        value=number("value"),
        low=number("low"),
        high=number("high"),
        count=number("count"),
        version=number("version"),
        note=str(cells["note"]),
        tolerance=number("tolerance"),
        origin=str(cells["origin"]),
    )


def _plain(value: object) -> object:
    """A value as strict and short JSON: a whole float as an integer, NaN as null."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < LARGEST_WHOLE:
        return int(value)
    return value


def _pack(values: np.ndarray) -> str:
    """The values (n,) of a run's starts as text; the module describes the format."""
    # Values of 0 and 1 need one character per start, since they are not separated by spaces.
    binary = bool(np.isin(values[np.isfinite(values)], (0.0, 1.0)).all())
    words = []
    for value in values:
        if math.isnan(value):
            words.append(NO_VALUE)
        elif binary:
            words.append(str(int(value)))
        else:
            words.append(f"{value:.{SAMPLE_DIGITS}g}")
    separator = " "
    if binary:
        separator = ""
    return separator.join(words)


def _unpack(text: str, n: int) -> np.ndarray:
    """The values (n,) float64 that `_pack` wrote. Raises ValueError if their number is not n."""
    # Several numbers are separated by spaces. For one start, both formats are the same.
    words = text.split()
    if n > 1 and " " not in text:
        words = list(text)
    if len(words) != n:
        raise ValueError(f"{len(words)} samples for {n} starts")
    values = np.full(n, NAN)
    for i, word in enumerate(words):
        if word != NO_VALUE:
            values[i] = float(word)
    return values


def _flat(value: object) -> str:
    """A value as one line of JSON. NaN raises ValueError, since strict readers reject it."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, default=str)


def _lines(value: object, depth: int = 0) -> str:
    """A value as JSON that version control can compare line by line.

    An object has one line per key, sorted, and a list of lists has one line per inner list. Every
    other value is on one line.
    """
    pad = " " * (depth + 1)
    end = "\n" + " " * depth
    if isinstance(value, list) and value and isinstance(value[0], list):
        rows = [pad + _flat(row) for row in value]
        return "[\n" + ",\n".join(rows) + end + "]"
    # json.dumps indents all levels, which would put each number of a row on a line of its own.
    if not isinstance(value, dict) or not value:
        return _flat(value)
    lines = []
    for key in sorted(value, key=str):
        name = json.dumps(str(key), ensure_ascii=False)
        lines.append(f"{pad}{name}: {_lines(value[key], depth + 1)}")
    return "{\n" + ",\n".join(lines) + end + "}"
