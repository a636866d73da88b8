"""Two folders side by side as a terminal table, CSV, a LaTeX fragment and a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from editbench.base.files import write_atomic
from editbench.base.progress import results_console
from editbench.figures.theme import make_theme
from editbench.report import typeset
from editbench.report.caveats import caveats
from editbench.report.cells import MISSING, capitalised, marks, number, spread
from editbench.report.notes import NO_CONTROL_MEANS, some
from editbench.report.paired import SIGNIFICANCE
from editbench.report.style import Style
from editbench.report.tables import AT_EFFECT
from editbench.report.templates import page_environment
from editbench.report.text_tables import by_name
from editbench.report.titles import Wording
from editbench.studies.side_by_side.differences import (
    FIRST,
    NO_VALUES,
    OPEN,
    OTHER_VERSION,
    PAIRED,
    SEPARATED,
    UNPAIRED,
    UNREAD,
    SideBySide,
)

TITLES = {"accuracy": "accuracy", AT_EFFECT: "AD", "success_rate": "success"}
SHOWN = FIRST[:2]  # numbers on the terminal and in LaTeX; the page and the CSV have all
DIGITS = 3  # of the numbers in FIRST
SIGNS = {"better": "▲", "worse": "▼", "higher": "△", "lower": "▽"}
ACROSS = 4  # most attributes side by side in LaTeX; more need a second tabular
WIDTH = 140.0  # units of the drawing of an interval
PAGE = "index.html"


def print_side_by_side(found: SideBySide) -> None:
    """Print the tables of accuracy and AD, the conclusions, and what is not compared."""
    console = results_console()
    for line in (f"A: {found.first}", f"B: {found.second}", *changes(found)):
        console.print(escape(line), soft_wrap=True)
    for name, part in found.parts():
        if part["metric"].iloc[0] not in SHOWN:
            continue
        table = Table(
            title=title_of(name, part),
            title_justify="left",
            title_style="bold",
            header_style="bold",
            box=None,
            pad_edge=False,
        )
        for heading in ("attribute", "method"):
            table.add_column(heading, overflow="fold")
        for heading in ("A", "B", "B − A [95 %]", "n"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", overflow="fold")
        before = None
        for row in part.to_dict("records"):
            if before not in (None, row["attribute"]):
                table.add_section()
            table.add_row(
                "" if row["attribute"] == before else escape(row["attribute"]),
                escape(named(row)),
                value_text(row, "a"),
                value_text(row, "b"),
                escape(difference_text(row)),
                count_text(row),
                escape(verdict_text(row)),
            )
            before = row["attribute"]
        console.print(table)
    for line in [*conclusions(found), *footnotes(found.table), *in_doubt(found)]:
        console.print(escape(line), soft_wrap=True)
    for line in not_compared(found):
        console.print(escape(line), style="dim", soft_wrap=True)


def write_side_by_side(found: SideBySide, out: Path, folders: Sequence[Path] = ()) -> Path:
    """Write compare.csv, not_compared.csv, compare.tex and the page.

    Args:
        found: the comparison.
        out: folder of the files.
        folders: a user's own configuration folders, whose YAMLs have titles.

    Returns:
        The path of the page.

    Raises:
        EditbenchError: `out` cannot be written.
    """
    alone = pd.DataFrame(found.pairing.alone, columns=["side", "run", "reason"])
    write_atomic(out / "compare.csv", found.table.to_csv(index=False, lineterminator="\n"))
    write_atomic(out / "not_compared.csv", alone.to_csv(index=False, lineterminator="\n"))
    # The CSV has names and not titles, since other programs look for names.
    shown = titled(found, folders)
    write_atomic(out / "compare.tex", latex_table(shown))
    write_atomic(out / PAGE, page(shown))
    return out / PAGE


def titled(found: SideBySide, folders: Sequence[Path] = ()) -> SideBySide:
    """The same comparison with titles in place of the names of methods and attributes.

    Args:
        found: the comparison.
        folders: a user's own configuration folders.

    Returns:
        The table has another column, `label`, with the names of methods.
    """
    results = found.pairing.b
    titles = {}
    for run, wording in Wording(results, folders).by_run("method"):
        titles[run["method"]] = str(wording.get("title") or run["method"])
    theme = Style(folders=tuple(folders)).theme(results)
    table = found.table.assign(label=found.table["method"])
    written = []
    for label in table["method"]:
        # In the label of a variant, the options follow the name.
        name, space, options = label.partition(" ")
        written.append(titles.get(name, name) + space + options)
    table["method"] = written
    table["attribute"] = [theme.attribute(name) for name in table["attribute"]]
    return replace(found, table=table)


# -- sentences -------------------------------------------------------------------------------------
def changes(found: SideBySide) -> list[str]:
    """What differs between A and B, one line per difference."""
    lines = []
    by_change: dict[str, list[str]] = {}
    for pair in found.pairing.pairs:
        for change in pair.changed:
            by_change.setdefault(change, []).append(pair.a.method)
    methods = {pair.a.method for pair in found.pairing.pairs}
    for change, several in by_change.items():
        # A change of only some methods names them.
        who = "" if set(several) == methods else f" ({', '.join(dict.fromkeys(several))})"
        lines.append(f"A -> B: {change}{who}")
    recoded = {
        pair.a.method
        for pair in found.pairing.pairs
        if pair.a.source and pair.b.source and pair.a.source != pair.b.source
    }
    if recoded:
        lines.append(f"A -> B: different code of {', '.join(sorted(recoded))}")
    if not by_change and not recoded:
        # Batch sizes and devices change numbers only by rounding.
        lines.append(
            "A and B have the same method options, protocol and code (batch sizes, devices and metric "
            "options are not compared)"
        )
    return lines


def conclusions(found: SideBySide) -> list[str]:
    """How many cells differ significantly: one sentence per number that was tested."""
    lines = []
    for name, part in found.parts():
        tested = part[part["verdict"].isin([*SEPARATED, OPEN])]
        if tested.empty:
            continue
        counts = tested["verdict"].value_counts()
        told = [f"B is {kind} in {counts[kind]}" for kind in SEPARATED if kind in counts]
        open_ones = int(counts.get(OPEN, 0))
        told.append(f"{open_ones} {OPEN}")
        lines.append(
            f"{title_of(name, part)}, {len(tested)} cells: {', '.join(told)} "
            f"({kind_of(tested)} bootstrap over starts; adjusted p below {SIGNIFICANCE:g}, Holm over "
            "these cells)"
        )
    return lines or ["nothing could be tested: no number has values per start in both folders"]


def kind_of(tested: pd.DataFrame) -> str:
    """The kind of the tests: 'paired', 'unpaired', or the number of each."""
    counts = tested["starts"].value_counts()
    if len(counts) == 1:
        return "paired" if PAIRED in counts else "unpaired"
    return f"{counts[PAIRED]} paired, {counts[UNPAIRED]} unpaired"


def footnotes(table: pd.DataFrame) -> list[str]:
    """Explanations of how A, B and their differences are computed."""
    found = []
    # So the numbers may differ from those of a report, which are over all starts.
    if (table["starts"] == PAIRED).any():
        found.append("A, B and B − A are means over the n starts that both have")
    if (table["starts"] == UNPAIRED).any():
        found.append(
            "unpaired: A and B walked from different starts, so each mean is resampled separately, "
            "including its seeds; the interval is wider than a paired one"
        )
    return found


def failed_searches(found: SideBySide) -> list[str]:
    """Which searches found no control in A and in B, one sentence per folder."""
    lines = []
    for side in ("A", "B"):
        failed = [pair.a.label for pair in found.pairing.pairs if side in pair.without_control]
        if failed:
            lines.append(f"{side}: {NO_CONTROL_MEANS} ({some(failed)})")
    return lines


def in_doubt(found: SideBySide) -> list[str]:
    """Caveats about the numbers. A caveat about only one folder begins with its name."""
    told = []
    for results in (found.pairing.a, found.pairing.b):
        runs = results.run_records
        # A dictionary, so that a mark on many runs is explained once.
        meanings = dict(mark for run in runs for mark in marks(run))
        lines = [f"{name}: {meaning}" for name, meaning in meanings.items()]
        told.append([*lines, *caveats(results, by_name(results, Style()))])
    first, second = told
    both = [line for line in first if line in second]
    return [
        *failed_searches(found),
        *both,
        *(f"A: {line}" for line in first if line not in both),
        *(f"B: {line}" for line in second if line not in both),
    ]


def not_compared(found: SideBySide) -> list[str]:
    """Runs and numbers without a counterpart, a line each."""
    sides = {"A": "only in A", "B": "only in B", "both": "not compared"}
    lines = [f"{sides[one.side]}: {one.run}: {one.reason}" for one in found.pairing.alone]
    return [*lines, *(f"numbers {line}" for line in found.left_out), *found.pairing.notes]


def names_of_folders(first: Path, second: Path) -> tuple[str, str]:
    """The last parts of two paths, as many as tell them apart: before/runs, after/runs.

    Args:
        first: a path.
        second: a path of another folder.
    """
    # Resolved, since the name of '.' is empty.
    a = first.resolve().parts
    b = second.resolve().parts
    count = 1
    while a[-count:] == b[-count:]:
        count += 1
    return str(Path(*a[-count:])), str(Path(*b[-count:]))


# -- cells -----------------------------------------------------------------------------------------
def title_of(name: str, part: pd.DataFrame) -> str:
    """The name of a number with an arrow to its better side.

    Args:
        name: of the number, as in the column `number`.
        part: its rows.
    """
    row = part.iloc[0]
    # Once: the name begins with the metric, and a variant may have the same word.
    title = name.replace(row["metric"], TITLES.get(row["metric"], row["metric"]), 1)
    arrow = {True: " ↑", False: " ↓", None: ""}[row["higher_is_better"]]
    return title.replace("_", " ") + arrow


def named(row: dict[Any, Any]) -> str:
    """'gradctrl × 3 seeds', 'random (floor)'."""
    seeds = row["seeds"].split(", ")
    told = ""
    if len(seeds) > 1:
        told = f" × {len(seeds)} seeds"
    elif seeds != ["0"]:
        told = f" (seed {seeds[0]})"
    return row["method"] + told + (" (floor)" if row["floor"] else "")


def digits_of(row: dict[Any, Any]) -> int | None:
    """Decimals of a number; None: three significant digits."""
    return DIGITS if row["metric"] in FIRST else None


def value_text(row: dict[Any, Any], side: str) -> str:
    """The number of a side, with a dagger where it is not to be read.

    Args:
        row: of the table.
        side: 'a' or 'b'.
    """
    text = number(row[side], digits_of(row))
    # A missing number needs no warning.
    return text + ("†" if row["verdict"] == UNREAD and text != MISSING else "")


def interval_text(row: dict[Any, Any], low: str, high: str, signed: bool = False) -> str:
    """'[0.31, 0.48]', or '' where there is none.

    Args:
        row: of the table.
        low: column of the lower end.
        high: column of the upper end.
        signed: whether the ends have their signs, as those of a difference.
    """
    ends = (row[low], row[high])
    if not all(math.isfinite(end) for end in ends):
        return ""
    written = [signed_text(end, row) if signed else number(end, digits_of(row)) for end in ends]
    return f"[{', '.join(written)}]"


def signed_text(value: float, row: dict[Any, Any]) -> str:
    """A difference with its sign.

    Args:
        value: the difference.
        row: of the table, whose metric decides the decimals.
    """
    if not math.isfinite(value):
        return MISSING
    # A typographic minus, as wide as the plus sign.
    return ("−" if value < 0 else "+") + number(abs(value), digits_of(row))


def difference_text(row: dict[Any, Any]) -> str:
    """'+0.071 [+0.020, +0.122]'."""
    return (
        f"{signed_text(row['difference'], row)} {interval_text(row, 'low', 'high', True)}".rstrip()
    )


def count_text(row: dict[Any, Any]) -> str:
    """How many starts a difference is over, 'unpaired' where the starts differ, '' without a test."""
    if row["starts"] == UNPAIRED:
        return "unpaired"
    return f"{row['n']:.0f}" if math.isfinite(row["n"]) else ""


def verdict_text(row: dict[Any, Any]) -> str:
    """'▲ better', or why there is no test."""
    text = f"{SIGNS.get(row['verdict'], '')} {row['verdict']}".strip()
    if row["verdict"] in (UNREAD, OTHER_VERSION, NO_VALUES) and row["note"]:
        text += f": {row['note']}"
    return text


# -- LaTeX -----------------------------------------------------------------------------------------
def latex_table(found: SideBySide) -> str:
    """A table for each of SHOWN: methods below each other, attributes side by side; needs booktabs."""
    parts: list[str] = []
    for name, part in found.parts():
        metric = part["metric"].iloc[0]
        if metric not in SHOWN:
            continue
        bodies = latex_bodies(part)
        title = title_of(name, part)
        # What was counted, without the title that begins the sentence.
        told = [
            line.removeprefix(f"{title}, ") + "."
            for line in conclusions(found)
            if line.startswith(f"{title}, ")
        ]
        a, b = names_of_folders(found.first, found.second)
        caption = (
            f"{capitalised(title)} in A ({a}) and B ({b}), and B − A with its 95 % "
            "interval, bold if the difference is significant: "
            f"{' '.join(told) or 'not tested.'}"
            + "".join(f" {capitalised(line)}." for line in footnotes(part))
        )
        notes = [typeset.note_below(line) for line in in_doubt(found)] if not parts else []
        lines = [
            r"\begin{table*}[t]",
            r"\centering\footnotesize",
            r"\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{typeset.escape(caption)}}}",
            rf"\label{{tab:compare-{metric.replace('_', '-')}}}",
            "\n\n\\medskip\n".join(bodies),
            *notes,
            r"\end{table*}",
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def latex_bodies(part: pd.DataFrame) -> list[str]:
    """The tabulars of one number."""
    records = part.to_dict("records")
    attributes = list(dict.fromkeys(row["attribute"] for row in records))
    ordered = sorted(records, key=lambda row: (row["floor"], row["method"], row["seeds"]))
    methods = list(dict.fromkeys(named(row) for row in ordered))
    cells = {(named(row), row["attribute"]): row for row in records}
    bodies = []
    for begin in range(0, len(attributes), ACROSS):
        group = attributes[begin : begin + ACROSS]
        lines = [
            " & ".join(["method", *(typeset.escape(a.replace("_", " ")) for a in group)]) + r" \\"
        ]
        lines.append(r"\midrule")
        for method in methods:
            columns = [latex_cell(cells.get((method, attribute))) for attribute in group]
            for name, line in zip((typeset.escape(method), "", ""), zip(*columns)):
                lines.append(" & ".join([name, *line]) + r" \\")
        shape = "l" + "c" * len(group)
        body = "\n".join(lines)
        bodies.append(
            f"\\begin{{tabular}}{{{shape}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}"
        )
    return bodies


def latex_cell(row: dict[Any, Any] | None) -> tuple[str, str, str]:
    """('0.340 → 0.787', the difference, its interval in small type) as LaTeX."""
    if row is None:
        return typeset.escape(MISSING), "", ""
    values = typeset.escape(f"{value_text(row, 'a')} → {value_text(row, 'b')}")
    gap = typeset.escape(signed_text(row["difference"], row))
    interval = typeset.escape(interval_text(row, "low", "high", True))
    if row["verdict"] in SEPARATED:
        gap = rf"\textbf{{{gap}}}"
    return values, gap, rf"{{\scriptsize {interval}}}" if interval else ""


# -- page ------------------------------------------------------------------------------------------
def page(found: SideBySide) -> str:
    """The page as text: a table a number, with a drawing of each interval.

    Args:
        found: the comparison as `titled` returns it.
    """
    sections = [page_section(name, part) for name, part in found.parts()]
    table = found.table
    theme = make_theme(table["label"], set(table.loc[table["floor"], "label"]))
    environment = page_environment("studies/side_by_side")
    return environment.get_template("side_by_side.html").render(
        first=found.first,
        second=found.second,
        names=" and ".join(names_of_folders(found.first, found.second)),
        changes=changes(found),
        conclusions=[*conclusions(found), *footnotes(found.table), *in_doubt(found)],
        first_sections=[one for one in sections if one["first"]],
        more_sections=[one for one in sections if not one["first"]],
        alone=found.pairing.alone,
        notes=[*(f"Numbers {line}" for line in found.left_out), *found.pairing.notes],
        width=WIDTH,
        theme=theme,
    )


def sortable(value: float) -> float | str:
    """A number to sort by; '' for one that is missing, which stays last."""
    return value if math.isfinite(value) else ""


def page_section(name: str, part: pd.DataFrame) -> dict[str, Any]:
    """What the page shows of one number.

    Args:
        name: of the number, as in the column `number`.
        part: its rows.
    """
    ends = part[["low", "high", "difference"]].abs().max().max()
    # All rows of a number share one axis with zero in its middle.
    reach = float(ends) if math.isfinite(ends) and ends > 0 else 1.0
    rows = []
    for row in part.to_dict("records"):
        drawn = None
        if math.isfinite(row["low"]):
            places = [row[key] / reach * (WIDTH / 2 - 6) for key in ("low", "difference", "high")]
            drawn = [round(place, 1) for place in places]
        rows.append(
            {
                "attribute": row["attribute"],
                "method": named(row),
                "label": row["label"],
                "a": value_text(row, "a"),
                "a_interval": interval_text(row, "a_low", "a_high"),
                "a_number": sortable(row["a"]),
                "b": value_text(row, "b"),
                "b_interval": interval_text(row, "b_low", "b_high"),
                "b_number": sortable(row["b"]),
                "difference": signed_text(row["difference"], row),
                "interval": interval_text(row, "low", "high", True),
                "number": sortable(row["difference"]),
                "drawn": drawn,
                "n": count_text(row),
                "verdict": verdict_text(row),
                "separated": row["verdict"] if row["verdict"] in SEPARATED else "",
            }
        )
    return {
        "title": title_of(name, part),
        "rows": rows,
        "first": part["metric"].iloc[0] in SHOWN,
        "drawn": any(row["drawn"] for row in rows),
        "reach": f"±{spread([reach])}",
    }
