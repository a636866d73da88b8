"""The baseline file: JSON with sorted keys, one line a row, what runs share written once.

Samples are text, one value for each of the run's starts in order: '0110-' where all are 0 or 1,
else numbers apart by spaces; '-' is a start without a value. Start ids are the first one and the
steps to the next.
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

KIND = "editbench baseline"
FORMAT = 2  # 1 had keys such as 'ad@0.125' instead of fields
# Rows are lists in this order: names would be repeated in each of thousands of rows.
COLUMNS = ["value", "low", "high", "count", "version", "note", "tolerance", "origin"]
# Fields that stand in the file as they are; the others are packed or shared.
PLAIN = ("method", "attribute", "seed", "status", "reason", "run_id", "source")


@dataclass(frozen=True)
class Baseline:
    """Pins and why they are there.

    Args:
        runs: sorted by label.
        reason: why these numbers are pinned; history: the reasons of the earlier versions, oldest
            first.
        made_with: versions and hardware; spread: folder -> how many runs and what was varied, {}
            for defaults.
    """

    runs: list[PinnedRun]
    reason: str
    history: list[str] = field(default_factory=list)
    made_with: dict = field(default_factory=dict)
    spread: dict = field(default_factory=dict)


def write_baseline(path: Path, baseline: Baseline) -> None:
    shared: dict[str, dict[str, Any]] = {"settings": {}, "methods": {}, "starts": {}}

    def once(table: str, value: Any) -> str:
        # The content is the key, so that equal options are stored once and a diff of the file shows
        # new content as a new key.
        key = digest(value, 8)
        shared[table][key] = value
        return key

    runs = {}
    for run in baseline.runs:
        runs[run.label] = {name: getattr(run, name) for name in PLAIN} | {
            "options": once("methods", run.options),
            "setting": once("settings", run.setting),
            "changed": run.changed,
            "rows": [
                [key_fields(key), *(_plain(getattr(pin, name)) for name in COLUMNS)]
                for key, pin in run.rows.items()
            ],
            # Steps between ids are short numbers, and ids are in ascending order.
            "starts": once("starts", " ".join(map(str, np.diff(run.starts, prepend=0)))),
            "samples": [[key_fields(key), _pack(values)] for key, values in run.samples.items()],
        }
    whole = {
        "kind": KIND,
        "format": FORMAT,
        "columns": COLUMNS,
        "reason": baseline.reason,
        "runs": runs,
        "history": baseline.history,
        "made_with": baseline.made_with,
        "tolerance": {"rule": RULE, "spread": baseline.spread},
        **shared,
    }
    # A changed digit would be compared as if it had been measured.
    whole[CHECKSUM] = digest(whole, 64)
    # The last line ends too, as text tools and diffs expect.
    write_atomic(path, _lines(whole) + "\n")


def read_baseline(path: Path) -> Baseline:
    """Raises BadFile where the file is missing, cut, or of another kind."""
    whole = _json(path)
    try:
        columns = whole["columns"]
        # Numbers under the wrong heading would be compared without a word.
        if columns != COLUMNS:
            raise ValueError(f"columns are {columns}")
        runs = []
        for label, run in whole["runs"].items():
            # Undoes the steps, of which the first is the first id itself.
            starts = np.cumsum(np.array(whole["starts"][run["starts"]].split(), np.int64))
            rows = {pinned_key(fields): _row(values) for fields, *values in run["rows"]}
            samples = {
                pinned_key(fields): _unpack(text, len(starts)) for fields, text in run["samples"]
            }
            options, setting = whole["methods"][run["options"]], whole["settings"][run["setting"]]
            runs.append(
                PinnedRun(
                    label,
                    **{name: run[name] for name in PLAIN},
                    options=options,
                    setting=setting,
                    changed=run["changed"],
                    rows=rows,
                    starts=starts,
                    samples=samples,
                )
            )
        return Baseline(
            # By label, as `pin_runs` gives them.
            sorted(runs, key=lambda run: run.label),
            whole["reason"],
            whole["history"],
            whole["made_with"],
            whole["tolerance"]["spread"],
        )
    # What a damaged part raises when it is taken apart: a key that is gone, another type.
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(
            f"{path} is a baseline with a damaged part ({type(error).__name__}: {error}); take it "
            "back from version control, or pin the runs again with `editbench baseline`"
        ) from error


def _json(path: Path) -> dict:
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadFile(
            f"the baseline '{path}' does not exist; `editbench baseline RUNS --out {path}` makes it"
        ) from error
    except (OSError, ValueError) as error:
        raise BadFile(
            f"the baseline '{path}' is no whole JSON file ({error}); take it back from version "
            "control, or pin the runs again with `editbench baseline`"
        ) from error
    # Before format and checksum, as another kind of file has neither.
    if not isinstance(whole, dict) or whole.get("kind") != KIND:
        raise BadFile(
            f"'{path}' is JSON but no baseline; `editbench baseline RUNS --out FILE` makes one"
        )
    if whole.get("format") != FORMAT:
        raise BadFile(
            f"the baseline '{path}' has format {whole.get('format')}, this editbench reads "
            f"{FORMAT}; pin the "
            "runs again"
        )
    # Taken out first, since the digest was made without it.
    expected = whole.pop(CHECKSUM, None)
    if expected != digest(whole, 64):
        raise BadFile(
            f"{path} is a baseline with a damaged part (its checksum differs); take it back from "
            "version control, or pin the runs again with `editbench baseline`"
        )
    return whole


def _row(values: list) -> Pin:
    # strict: a row that is too short must not shift or lose a value.
    cells = dict(zip(COLUMNS, values, strict=True))

    def number(name: str) -> float:
        return NAN if cells[name] is None else float(cells[name])

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
    """Whole floats as integers, NaN as null: short, and strict JSON."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 1e9 else value


def _pack(values: np.ndarray) -> str:
    # Accuracy and success are 0 or 1 a start: one character instead of two.
    if np.isin(values[np.isfinite(values)], (0.0, 1.0)).all():
        return "".join("-" if math.isnan(v) else str(int(v)) for v in values)
    return " ".join("-" if math.isnan(v) else f"{v:.{SAMPLE_DIGITS}g}" for v in values)


def _unpack(text: str, n: int) -> np.ndarray:
    # A single start has no space in either form, and '1.25' must stay one word.
    words = list(text) if n > 1 and " " not in text else text.split()
    # Fewer values than starts would pair each with the wrong one.
    if len(words) != n:
        raise ValueError(f"{len(words)} samples for {n} starts")
    return np.array([NAN if word == "-" else float(word) for word in words])


def _flat(value: object) -> str:
    # NaN is no JSON; a value that `_plain` missed must fail here and not in another reader.
    return json.dumps(value, allow_nan=False, ensure_ascii=False, default=str)


def _lines(value: object, depth: int = 0) -> str:
    """Objects a key a line, in order of the keys; rows one a line; everything else on one line."""
    pad = " " * (depth + 1)
    # A line a row, so that a diff lists the rows that changed.
    if isinstance(value, list) and value and isinstance(value[0], list):
        rows = [pad + _flat(row) for row in value]
        return "[\n" + ",\n".join(rows) + "\n" + " " * depth + "]"
    if not isinstance(value, dict) or not value:
        return _flat(value)
    lines = [
        f"{pad}{json.dumps(str(key), ensure_ascii=False)}: {_lines(value[key], depth + 1)}"
        for key in sorted(value, key=str)
    ]
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"
