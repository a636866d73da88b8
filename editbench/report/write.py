"""The tables as text: terminal, Markdown, CSV."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from editbench.report import dial
from editbench.report.cells import (
    COLUMNS,
    HIDDEN,
    LEAST_LEARNED,
    MISSING,
    NOT_LEARNED,
    Cell,
    Column,
    cell,
    columns_of,
    marks,
    not_learned,
)
from editbench.report.costs import COSTS, SUMMED, cost_table
from editbench.report.load import Results
from editbench.report.published import lines
from editbench.report.ranking import lines as ranking_lines
from editbench.report.ranking import ranking
from editbench.report.tables import Quantity, main_table, quantities, summary

WIDE = 140  # columns of a terminal that takes the costs too
PIPE = 240  # columns where there is no terminal: nothing is wrapped
# The biased ones: the legend warns of them only.
FRECHET = ("frechet_distance_up", "frechet_distance_down", "fid_up", "fid_down")
# A note on every run of a sweep would fill the screen.
NAMED = 6  # runs that a note names
NOT_LEARNED_MEANS = (
    f"{NOT_LEARNED}: what the method learnt orders the teacher's labels on the tune split with an "
    f"AUC below {LEAST_LEARNED:g}; 0.5 is chance, and its accuracy says little of the method"
)
TITLES = {column.key: column.title for column in COLUMNS}


def print_table(results: Results, console: Console | None = None) -> None:
    """The main table, a section an attribute, then the methods' means; what was not done, with its
    reason."""
    console = console or (
        Console() if sys.stdout.isatty() else Console(width=PIPE)
    )  # a pipe or a log gets it all
    whole = main_table(results)
    for setting in sorted(set(whole["setting"])):
        table = whole[whole["setting"] == setting]
        title = f"editbench: {', '.join(sorted(set(table['generator'])))}" + (
            f" · {setting}" if setting else ""
        )
        columns = columns_of(table, quantities(results))
        if console.width < WIDE:
            # In a narrow terminal intervals go as well, but for the main number.
            columns = [replace(c, interval=c.key == "accuracy") for c in columns if c.narrow]
        out = _rich(["attribute", "method", *map(heading, columns)], title)
        for attribute, group in table.groupby("attribute"):
            for position, record in enumerate(group.to_dict("records")):
                # Once a group, as a repeated name is harder to scan.
                name = str(attribute) if position == 0 else ""
                # rich reads [text] as markup, and marks stand in brackets.
                out.add_row(
                    escape(name), escape(_name(record)), *_values(record, columns, "terminal")
                )
            out.add_section()
        console.print(out)
        means = summary(table)
        out = _rich(
            ["method", "attributes", *map(heading, columns)], "mean over the attributes served"
        )
        for record in means.to_dict("records"):
            out.add_row(
                escape(_name(record)),
                f"{record['served']} of {record['asked']}",
                *_values(record, columns, "terminal"),
            )
        console.print(out)
        told = []
        for title, headings, rows, notes in _ranks_and_costs(
            results.only(setting), table, "terminal"
        ):
            # Ties are a list of names and fold; everything else in the ranking is short.
            out = _rich(
                headings, title, wrapped=(len(headings) - 1,) if title == "ranking" else (0,)
            )
            for row in rows:
                out.add_row(*row)
            if rows:
                console.print(out)
            told += notes
        for line in told:
            console.print(escape(line), style="dim", soft_wrap=True)
    if tied := dial.table(results):
        out = _rich(tied[0], "the entanglement dial, least entangled first", wrapped=(0,))
        for row in tied[1:]:
            out.add_row(*map(escape, row))
        console.print(out)
        console.print(dial.SLOPE, style="dim", soft_wrap=True)
    for line in (
        legend(whole, quantities(results))
        + not_done(whole)
        + [f"broken: {p.name}: {p.reason}" for p in results.problems]
    ):
        console.print(escape(line), style="dim", soft_wrap=True)


def markdown(results: Results) -> str:
    """Both tables in Markdown."""
    parts = ["# editbench report"]
    whole = main_table(results)
    for setting in sorted(set(whole["setting"])):
        table = whole[whole["setting"] == setting]
        columns = columns_of(table, quantities(results))
        parts.append(
            f"## {', '.join(sorted(set(table['generator'])))}" + (f": {setting}" if setting else "")
        )
        rows = [
            [record["attribute"], _name(record), *_values(record, columns, "plain")]
            for record in table.to_dict("records")
        ]
        parts.append(_pipes(["attribute", "method", *map(heading, columns)], rows))
        parts.append("Mean over the attributes served:")
        rows = [
            [
                _name(record),
                f"{record['served']} of {record['asked']}",
                *_values(record, columns, "plain"),
            ]
            for record in summary(table).to_dict("records")
        ]
        parts.append(_pipes(["method", "attributes", *map(heading, columns)], rows))
        for title, headings, rows, notes in _ranks_and_costs(results.only(setting), table, "plain"):
            parts += [f"{title[0].upper()}{title[1:]}:", _pipes(headings, rows)] if rows else []
            parts += [f"{line[0].upper()}{line[1:]}." for line in notes]
    # After the settings, since it spans them.
    if tied := dial.table(results):
        parts += ["## The entanglement dial", _pipes(tied[0], tied[1:]), f"{dial.SLOPE}."]
    parts += lines(results)
    notes = (
        legend(whole, quantities(results))
        + not_done(whole)
        + [f"broken: {p.name}: {p.reason}" for p in results.problems]
    )
    return (
        "\n\n".join([*parts, "\n".join(f"- {_pipe_safe(line)}" for line in notes)]).rstrip() + "\n"
    )


def csv(results: Results) -> str:
    """main_table with full precision, a column a number; empty where there is none."""
    # The column serves the code; the label and the run say it to a reader.
    return main_table(results).drop(columns="variant_of").to_csv(index=False, lineterminator="\n")


def heading(column: Column) -> str:
    """'accuracy ↑'."""
    return column.title + {True: " ↑", False: " ↓", None: ""}[column.better]


def legend(table: pd.DataFrame, known: Mapping[str, Quantity]) -> list[str]:
    """What the marks in the table mean.

    Args:
        table: of `main_table`.
        known: `quantities` of the same records.
    """
    # A dictionary, so that a mark on many rows is explained once.
    found = dict(mark for record in table.to_dict("records") for mark in marks(record))
    lines = [f"{name}: {meaning}" for name, meaning in found.items()]
    effects = sorted(set(table["ad_at_effect"].dropna()))
    if effects:
        lines.append(
            f"AD: at an achieved effect of {', '.join(f'{x:g}' for x in effects)} σ on the target; "
            "means are over the attributes on which it is readable for every method but the floor"
        )
    if any(not_learned(record) for record in table.to_dict("records")):
        lines.append(NOT_LEARNED_MEANS)
    # A column can be there without a number, and then needs no warning.
    distances = [key for key, one in known.items() if one.metric in FRECHET and key in table]
    if any(table[key].notna().any() for key in distances):
        lines.append(
            "Fréchet distance, FID: that of n pictures lies above that of all, by more where they "
            "vary more; the kernel distance, in table.csv and the figures, has no such bias"
        )
    noted = [f"{key}_note" for key, one in known.items() if one.metric not in HIDDEN]
    # In the order of the columns, as a reader looks from the table to the note.
    for key in (name for name in table.columns if name in noted):
        for note, group in table[table[key] != ""].groupby(key):
            where = [
                f"{method}/{attribute}"
                for method, attribute in zip(group["method"], group["attribute"])
            ]
            more = f" and {len(where) - NAMED} more" if len(where) > NAMED else ""
            name = key.removesuffix("_note")
            lines.append(f"† {TITLES.get(name, name)}: {note} ({', '.join(where[:NAMED])}{more})")
    return lines


def not_done(table: pd.DataFrame) -> list[str]:
    rows = table[table["status"] != "done"]
    return [
        f"{r['status']}: {r['method']} on {r['attribute']}: {r['reason']}"
        for r in rows.to_dict("records")
    ]


def _ranks_and_costs(
    results: Results, table: pd.DataFrame, style: str
) -> list[tuple[str, list[str], list[list[str]], list[str]]]:
    """(title, headings, rows, notes) of the ranking and of the costs of one setting."""

    def safe(text: object) -> str:
        return escape(str(text)) if style == "terminal" else str(text)

    # The costs below are of its attributes.
    ranked = ranking(results)
    accuracy = COLUMNS[0]
    ranks = [
        [
            row["rank"],
            safe(row["method"]),
            _written(cell(row, accuracy), style),
            safe(_some(row["tied_with"].split(", "))) or MISSING,
        ]
        for row in ranked.table.to_dict("records")
    ]
    means = cost_table(table, ranked)
    shown = [column for column in COSTS if means[column.key].notna().any()]
    costs = [
        [
            safe(_name(row)),
            f"{row['served']} of {row['asked']}",
            *(cell(row, column).text for column in shown),
        ]
        for row in means.to_dict("records")
    ]
    return [
        (
            "ranking",
            ["rank", "method", heading(accuracy), "not separated from"],
            ranks,
            ranking_lines(ranked),
        ),
        (f"costs: {SUMMED}", ["method", "attributes", *map(heading, shown)], costs, []),
    ]


def _some(names: list[str]) -> str:
    """All names, or as many as a line takes."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _values(record: dict, columns: list[Column], style: str) -> list[str]:
    status = record.get("status", "done")
    if status != "done":
        # The status takes the first number's place, so that a gap is never left unexplained.
        return [status, *[""] * (len(columns) - 1)]
    return [_written(cell(record, column), style) for column in columns]


def _written(value: Cell, style: str) -> str:
    text = value.text + ("†" if value.mark else "") + (f" {value.tag}" if value.tag else "")
    if not value.interval:
        return text
    return (
        f"{text} [dim]{value.interval}[/dim]"
        if style == "terminal"
        else f"{text} ({value.interval})"
    )


def _name(record: dict) -> str:
    return record["method"] + "".join(f" [{mark}]" for mark, _ in marks(record))


def _rich(headings: list[str], title: str, wrapped: tuple[int, ...] = (0, 1)) -> Table:
    """The columns in `wrapped` are text and fold; the others are numbers."""
    out = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
    )
    for position, text in enumerate(headings):
        out.add_column(
            text,
            justify="left" if position in (0, 1, *wrapped) else "right",
            # A number that is broken over two lines can be misread.
            no_wrap=position not in wrapped,
            overflow="fold",
        )
    return out


def _pipes(headings: list[str], rows: list[list[str]]) -> str:
    rule = ["---", "---", *["---:"] * (len(headings) - 2)]
    return "\n".join(
        "| " + " | ".join(map(_pipe_safe, row)) + " |" for row in [headings, rule, *rows]
    )


def _pipe_safe(text: str) -> str:
    # A record's text could end the cell or open a tag.
    return str(text).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
