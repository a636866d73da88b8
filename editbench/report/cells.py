"""How numbers are written. The terminal, Markdown and HTML tables share one list of columns."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from editbench.report.means import over
from editbench.report.tables import FIRST, FLOORS_APART, Quantity, scalars_of

MISSING = "–"
# Below this AUC, what a method learnt says hardly anything about codes that it was not fitted on,
# and its walks do not measure the method. 0.5 is chance.
LEAST_LEARNED = 0.6
NOT_LEARNED = "not learned"
# Marks next to a number, one for each floor that it is not clear of.
FLOOR_MARKS = "ᵃᵇᶜᵈᵉᶠᵍʰ"
# Metrics that are only in the CSV, to keep the main table readable.
HIDDEN = {
    "ad",
    "ad_signed",
    "ad_max",
    "wrong_direction",
    "frechet_distance_zero",
    "frechet_distance_floor",
    "frechet_distance_asymmetry",
    "fid_zero",
    "fid_floor",
    "fid_asymmetry",
    "kernel_distance_up",
    "kernel_distance_down",
    "kernel_distance_zero",
    "kernel_distance_asymmetry",
    "kid_up",
    "kid_down",
    "kid_zero",
    "kid_asymmetry",
}


@dataclass(frozen=True)
class Column:
    """How a column is shown.

    Attributes:
        key: column of the frame.
        title: heading.
        digits: number of decimals; None for three significant digits.
        interval: whether key_low and key_high are shown.
        better: whether higher is better; None for neither.
        hint: explanation in one sentence.
        narrow: whether it is also shown in terminals narrower than text_tables.WIDE, which omit
            the costs.
    """

    key: str
    title: str
    digits: int | None = 3
    interval: bool = False
    better: bool | None = None
    hint: str = ""
    narrow: bool = False

    @property
    def heading(self) -> str:
        """Title and direction, such as 'accuracy ↑'."""
        return self.title + {True: " ↑", False: " ↓", None: ""}[self.better]


@dataclass(frozen=True)
class Cell:
    """How a cell is shown.

    Attributes:
        text: the number.
        interval: 'low–high', or 'low to high' if one of them is negative; '' for none.
        number: to sort by; None sorts last.
        mark: why the number is in doubt; '' if it is not.
        floors: floors that the number is not clear of.
        tag: words next to the number; '' for none.
    """

    text: str
    interval: str = ""
    number: float | None = None
    mark: str = ""
    floors: tuple[str, ...] = ()
    tag: str = ""


COLUMNS = (
    Column(
        "accuracy",
        "accuracy",
        interval=True,
        better=True,
        hint="share of starts that reach the target class while every other attribute keeps its "
        "class, judged at the first crossing; 95 % interval",
        narrow=True,
    ),
    Column(
        "success_rate",
        "success",
        better=True,
        hint="share of starts that reach the target class, whatever else changes",
        narrow=True,
    ),
    Column(
        "ad_at",
        "AD",
        interval=True,
        better=False,
        hint="mean change of the other attributes, in σ, at equal achieved effect on the target",
        narrow=True,
    ),
    Column(
        "off_target_flips",
        "flips",
        digits=2,
        better=False,
        hint="number of other attributes that have changed class at the crossing, mean over the "
        "starts that crossed",
        narrow=True,
    ),
    Column(
        "learned",
        "learned",
        digits=2,
        better=True,
        hint="how well the score that the method learned ranks the tune split by the teacher's "
        "labels, as an AUC (0.5 is chance)",
        narrow=True,
    ),
    Column(
        "path_length",
        "path",
        digits=None,
        hint="length of the walk up to the crossing, in the method's own unit: not comparable "
        "between methods with different units",
    ),
    # The time of the original fit. With the time to load a cached fit, a method would seem free.
    Column(
        "fit_seconds",
        "fit s",
        digits=None,
        better=False,
        hint="seconds of the fit, even if it came from the cache",
    ),
    Column(
        "edits_per_second",
        "edits/s",
        digits=None,
        better=True,
        hint="finished edits per second, including decoding and judging",
    ),
    Column(
        "generator_calls",
        "gen. calls",
        digits=None,
        better=False,
        hint="passes through the generator: decoded images and derivatives",
    ),
    Column(
        "labels_used",
        "labels",
        digits=None,
        better=False,
        hint="labels that the fit used, including the teacher's answers",
    ),
    Column("n", "n", digits=0, hint="number of starts, the same for every method of an attribute"),
    Column("seeds", "seeds", digits=0, hint="number of seeds that the values are averaged over"),
)


def columns_of(table: pd.DataFrame, known: Mapping[str, Quantity] | None = None) -> list[Column]:
    """The columns that have numbers: those of COLUMNS, then one for each other scalar metric.

    Args:
        table: `main_table`.
        known: `quantities` of the same records; without it, the name of a column is its metric.
    """
    known = known or {}
    shown = [
        column for column in COLUMNS if column.key in table and table[column.key].notna().any()
    ]
    # If every row has one seed, the lines above the tables say so.
    if "seeds" in table and (table["seeds"] <= 1).all():
        shown = [column for column in shown if column.key != "seeds"]
    extra: dict[str, Quantity] = {}
    for key in scalars_of(table):
        if not table[key].notna().any():
            continue
        quantity = known.get(key, Quantity(key))
        if quantity.metric not in (*FIRST, *HIDDEN):
            extra[key] = quantity
    metrics = [quantity.metric for quantity in extra.values()]
    for key, quantity in extra.items():
        # The title is the metric, unless several columns have the same metric.
        title = quantity.metric if metrics.count(quantity.metric) == 1 else key
        hint = key.replace("_", " ") if quantity.metric != key else ""
        shown.append(
            Column(
                key,
                title.replace("_", " "),
                digits=None,
                interval=True,
                better=quantity.better,
                hint=hint,
            )
        )
    return shown


def cell(record: Mapping[Any, Any], column: Column) -> Cell:
    """One cell of a row of `main_table` or of the means.

    Args:
        record: the row. Only the column itself is required; its interval, note and floors are
            looked up under the key with the ends `_low`, `_high`, `_note` and `_floor`.
        column: what is shown, and with how many digits.

    Returns:
        MISSING with the note as its mark, if the value is absent or not finite.
    """
    value = record.get(column.key)
    # Not every column has a note: None becomes ''.
    note = str(record.get(f"{column.key}_note") or "")
    if value is None or not math.isfinite(value):
        # The note is kept, since it says why the value is missing.
        return Cell(MISSING, mark=note)
    interval = ""
    if column.interval:
        low = record.get(f"{column.key}_low", math.nan)
        high = record.get(f"{column.key}_high", math.nan)
        # Not every mean has an interval.
        if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
            ends = number(low, column.digits), number(high, column.digits)
            # A dash next to a minus would look like another minus.
            interval = ("–" if min(low, high) >= 0 else " to ").join(ends)
    floors = floors_of_cell(record, column.key)
    tag = NOT_LEARNED if column.key == "learned" and not_learned(record) else ""
    return Cell(number(value, column.digits), interval, float(value), note, floors, tag)


def floors_of_cell(record: Mapping[Any, Any], key: str) -> tuple[str, ...]:
    """The floors that a number is not clear of.

    Args:
        record: row of `main_table` or of the means.
        key: column of the number; only those of ABOVE_FLOOR are compared with floors.
    """
    names = str(record.get(f"{key}_floor") or "")
    return tuple(names.split(FLOORS_APART)) if names else ()


def is_bold(value: Cell, leads: bool) -> bool:
    """Whether a number is bold: its method leads, and the number is clear of every floor.

    Nothing that random edits may reach as well is shown as the best.

    Args:
        value: the number.
        leads: whether its method is the best one or not behind it.
    """
    return leads and not value.floors


def floor_marks(floors: Collection[str]) -> dict[str, str]:
    """Floor -> its mark in tables.

    Args:
        floors: all floors of a setting. If there are more floors than marks, they share the last
            mark.
    """
    last = len(FLOOR_MARKS) - 1
    return {name: FLOOR_MARKS[min(k, last)] for k, name in enumerate(sorted(floors))}


def over_what(record: Mapping[Any, Any], key: str) -> str:
    """What a mean is over: '3 of 4 attributes, 452 starts'; '–' if there is no mean.

    Args:
        record: row of the means.
        key: column of the mean, one of MEANS.
    """
    if not record[f"{key}_attributes"]:
        return MISSING
    return over(record[f"{key}_attributes"], record["asked"], record[f"{key}_starts"])


def not_learned(record: Mapping[Any, Any]) -> bool:
    """Whether the method of a row of `main_table` or `summary` learnt hardly anything."""
    # NaN, for a method without a value, compares as False.
    return bool(record.get("learned", math.nan) < LEAST_LEARNED)


def number(value: float, digits: int | None = None) -> str:
    """A number as text, with a typographic minus: 0.0123, 4.56, −789, 12.3k.

    Args:
        value: any; MISSING stands for NaN and infinity.
        digits: number of decimals; None for three significant digits, with k from 10,000 and M from
            a million on. Without decimals a size below 0.001 becomes <0.001.
    """
    if not math.isfinite(value):
        return MISSING
    if value < 0:
        size = number(-value, digits)
        return f">−{size[1:]}" if size.startswith("<") else f"−{size}"
    # Columns of shares have fixed decimals, so that they are aligned.
    if digits is not None:
        return f"{value:.{digits}f}"
    # A small cost or difference should not appear as 0.
    if 0 < value < 0.001:
        return "<0.001"
    # What rounds to 1000k is 1M. 4,560 is easy to read with all its digits.
    if value >= 999.5e3:
        return f"{_three_digits(value / 1e6)}M"
    if value >= 1e4:
        return f"{_three_digits(value / 1e3)}k"
    return _three_digits(value)


def _three_digits(value: float) -> str:
    """Three significant digits, or all digits before the point if these are more."""
    # :.3g would write numbers from 999.5 on as powers.
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(values: Collection[float]) -> str:
    """The range of some numbers: '200', or '180–220'; '' if there are none."""
    numbers = sorted(float(value) for value in values if math.isfinite(value))
    if not numbers:
        return ""
    texts = [
        # :.2g would write numbers from 99.5 on as powers.
        f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.2g}"
        for value in (numbers[0], numbers[-1])
    ]
    # The texts are compared, since 1.001 and 1.002 are written alike.
    return texts[0] if texts[0] == texts[1] else "–".join(texts)


def marks(record: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """The marks of a row, which are shown next to the method's name: [(short mark, meaning)]."""
    found = []
    if record.get("leaking"):
        found.append(
            (
                "leaking",
                "the judge is the teacher that the method learned from, which flatters the method",
            )
        )
    if record.get("judged_in") == "w":
        found.append(("latent", "the judge scored latent codes, not images"))
    return found


def capitalised(text: str) -> str:
    """The text with a capital first letter; all other letters are kept, unlike str.capitalize."""
    return text[:1].upper() + text[1:]


def markdown_safe(text: object) -> str:
    """Escape text of a record for Markdown, where it could end its cell or line, or open a tag."""
    # A carriage return ends a line of Markdown too.
    line = " ".join(str(text).splitlines())
    return line.replace("|", "\\|").replace("<", "&lt;")
