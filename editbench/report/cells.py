"""How a number is written: one list of columns serves the terminal, Markdown and HTML tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from editbench.report.tables import FIRST

MISSING = "–"
HIDDEN = (
    {"ad", "ad_signed", "ad_max", "wrong_direction"}
    | {  # CSV only: the main table must stay readable
        f"{kind}_{end}"
        for kind in ("frechet_distance", "fid")
        for end in ("zero", "floor", "asymmetry")
    }
    | {
        f"{kind}_{end}"
        for kind in ("kernel_distance", "kid")
        for end in ("up", "down", "zero", "asymmetry")
    }
)


@dataclass(frozen=True)
class Column:
    """key: column of the frame; title; digits (None: three significant); interval: show key_low, key_high; better:
    direction; hint: one sentence; narrow: shown in a narrow terminal too."""

    key: str
    title: str
    digits: int | None = 3
    interval: bool = False
    better: bool | None = None
    hint: str = ""
    narrow: bool = False
    unit: str = ""


@dataclass(frozen=True)
class Cell:
    """text as shown, interval ('' or 'low–high'), number to sort by (None: sorts last), mark ('' or why in doubt)."""

    text: str
    interval: str = ""
    number: float | None = None
    mark: str = ""


COLUMNS = (
    Column(
        "accuracy",
        "accuracy",
        3,
        True,
        True,
        "target reached and every other attribute kept, at the first crossing; 95 % interval",
        narrow=True,
    ),
    Column(
        "success_rate",
        "success",
        3,
        False,
        True,
        "target reached, whatever else changed",
        narrow=True,
    ),
    Column(
        "ad_at",
        "AD",
        3,
        True,
        False,
        "mean change of the other attributes, in σ, at the same achieved effect on the target",
        narrow=True,
    ),
    Column(
        "off_target_flips",
        "flips",
        2,
        False,
        False,
        "other attributes whose label changed, mean over the starts that crossed",
        narrow=True,
    ),
    Column(
        "path_length",
        "path",
        None,
        False,
        None,
        "length walked to the crossing, in the editor's own unit: not "
        "comparable across editors of different units",
    ),
    Column(
        "fit_seconds", "fit s", None, False, False, "seconds of the one-time fit, also if cached"
    ),
    Column(
        "edits_per_second",
        "edits/s",
        None,
        False,
        True,
        "finished edits a second, decoding and judging included",
    ),
    Column(
        "generator_calls",
        "gen. calls",
        None,
        False,
        False,
        "images decoded, and passes of derivatives",
    ),
    Column(
        "labels_used",
        "labels",
        None,
        False,
        False,
        "labels the fit looked at, the teacher's answers too",
    ),
    Column("n", "n", 0, False, None, "starts, the same for every editor of an attribute"),
)


def columns_of(
    table: pd.DataFrame, better: Mapping[str, bool | None] | None = None
) -> list[Column]:
    """The known columns that hold a number, and a column for each scalar metric that is not known here."""
    better = better or {}
    shown = [
        column for column in COLUMNS if column.key in table and table[column.key].notna().any()
    ]
    extra = [key.removesuffix("_low") for key in table.columns if key.endswith("_low")]
    extra = [
        key
        for key in extra
        if key.split("[")[0] not in (*FIRST, *HIDDEN) and table[key].notna().any()
    ]
    bare = [
        key.split("[")[0] for key in extra
    ]  # 'name[of what]': the brackets are told where two would look alike
    shown += [
        Column(
            key,
            (name if bare.count(name) == 1 else key).replace("_", " "),
            None,
            True,
            better.get(key),
            key.replace("_", " ") if name != key else "",
        )
        for key, name in zip(extra, bare)
    ]
    return shown


def cell(record: Mapping[Any, Any], column: Column) -> Cell:
    """One cell of a row of `main_table` or `summary`."""
    value = record.get(column.key)
    note = str(record.get(f"{column.key}_note") or "")
    if value is None or not math.isfinite(value):
        return Cell(MISSING, mark=note)
    low, high = (
        record.get(f"{column.key}_low", math.nan),
        record.get(f"{column.key}_high", math.nan),
    )
    finite = (
        column.interval
        and low is not None
        and high is not None
        and math.isfinite(low)
        and math.isfinite(high)
    )
    interval = f"{number(low, column.digits)}–{number(high, column.digits)}" if finite else ""
    return Cell(number(value, column.digits), interval, float(value), note)


def number(value: float, digits: int | None = None) -> str:
    """Fixed decimals, or three significant digits with k and M: 0.0123, 4.56, 789, 12.3k."""
    if not math.isfinite(value):
        return MISSING
    if digits is not None:
        return f"{value:.{digits}f}"
    for limit, suffix in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (limit if suffix == 'M' else 1e3):.3g}{suffix}"
    if 0 < abs(value) < 0.001:
        return "<0.001" if value > 0 else ">−0.001"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def marks(record: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """[(short mark, what it means)] of a row."""
    found = []
    if record.get("leaking"):
        found.append(
            (
                "leaking",
                "the judge is the teacher the editor was trained on: the numbers flatter the editor",
            )
        )
    if record.get("judged_in") == "w":
        found.append(("latent", "the judge scored latent codes, not images"))
    return found
