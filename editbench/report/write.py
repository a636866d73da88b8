"""The tables as text: terminal, Markdown, CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from editbench.base.progress import results_console
from editbench.figures.theme import Theme
from editbench.report import dial
from editbench.report.cells import (
    COLUMNS,
    HIDDEN,
    LEAST_LEARNED,
    MISSING,
    NOT_LEARNED,
    Cell,
    Column,
    above_floor,
    cell,
    markdown_safe,
    marks,
    not_learned,
    over_what,
)
from editbench.report.costs import SUMMED
from editbench.report.doubts import NAMED, doubts
from editbench.report.load import Results
from editbench.report.means import MeanComparison
from editbench.report.means import lines as means_lines
from editbench.report.numbers import Numbers, numbers_of
from editbench.report.paired import SIGNIFICANCE
from editbench.report.published import lines
from editbench.report.ranking import lines as ranking_lines
from editbench.report.style import Style
from editbench.report.tables import (
    ABOVE_FLOOR,
    AT_EFFECT,
    AT_FLOOR,
    WORSE,
    Quantity,
    main_table,
    quantities,
)

UNBOUNDED = 10_000  # columns; no table is that wide
WIDE = 140  # columns of a terminal that takes the costs too
# The biased ones: the legend warns of them only.
FRECHET = ("frechet_distance_up", "frechet_distance_down", "fid_up", "fid_down")
BOLD = (
    "Bold: the best of a column and whatever has an interval that overlaps the best's and is not "
    f"separated from it by the paired bootstrap (Holm, adjusted p below {SIGNIFICANCE:g}); nothing where no "
    "other method is behind the best. A floor is never bold."
)
FLOOR_RULE = f"“{AT_FLOOR}”: the interval overlaps that of the best floor; “{WORSE}”: it lies on the wrong side."
NOT_LEARNED_MEANS = (
    f"{NOT_LEARNED}: what the method learnt orders the teacher's labels on the tune split with an "
    f"AUC below {LEAST_LEARNED:g}; 0.5 is chance, and its accuracy says little of the method"
)
OVER_CROSSED = ("off_target_flips", "path_length")  # columns over the starts that crossed
TITLES = {column.key: column.title for column in COLUMNS}


def print_table(
    results: Results,
    console: Console | None = None,
    every: Sequence[Numbers] | None = None,
    style: Style | None = None,
) -> None:
    """The main table, a section an attribute, then the methods' means; what was not done, with its
    reason.

    Methods and attributes stand under their names, by which the command line knows them.

    Args:
        results: of all settings.
        console: to print to; None is the terminal, or a pipe.
        every: the numbers of each setting, where they are there already.
        style: which columns, and with how many digits.
    """
    style = style or Style()
    theme = by_name(results, style)
    console = console or results_console()
    if every is None:
        every = [numbers_of(setting, part) for setting, part in results.by_setting()]
    for numbers in every:
        _print_setting(numbers, console, style, theme)
    if tied := dial.table(results):
        out = _rich(tied[0], f"{dial.title(results).lower()}, flattest first", wrapped=(0,))
        for row in tied[1:]:
            out.add_row(*map(escape, row))
        console.print(out)
        console.print(dial.SLOPE, style="dim", soft_wrap=True)
    for line in _last_notes(results, theme, style):
        console.print(escape(line), style="dim", soft_wrap=True)


def by_name(results: Results, style: Style) -> Theme:
    """Methods and attributes written by their names, columns by their titles."""
    attributes = {name: name for name in sorted(set(results.runs["attribute"]))}
    return Theme({}, attributes, columns=style.titles)


def _print_setting(numbers: Numbers, console: Console, style: Style, theme: Theme) -> None:
    table = numbers.table
    title = f"editbench: {setting_title(numbers, theme)}"
    columns = style.columns_of(numbers)
    if console.width < WIDE:
        # In a narrow terminal intervals go as well, but for the main number. What was asked for
        # stays: the table is then printed in parts.
        columns = [
            replace(column, interval=column.key == "accuracy")
            for column in columns
            if column.narrow or column.key in style.columns
        ]
    heads, rows = _runs(table, columns, "terminal", theme)
    print_runs(console, title, heads, rows, _last(heads))
    told = [
        *missed_bars(numbers.results),
        over_starts(table, theme, style),
        *_floor_lines(table, theme, style),
    ]
    heads, rows = _means(numbers, columns, "terminal", theme)
    out = _rich(heads, "mean over attributes, the same for every method", wrapped=range(len(heads)))
    for row in rows:
        out.add_row(*row)
    console.print(out)
    told += means_lines(compared_of(numbers, style), theme)
    for title, headings, rows, notes in _ranks_and_costs(numbers, "terminal", style, theme):
        # Ties are a list of names and fold; everything else in the ranking is short.
        out = _rich(headings, title, wrapped=(len(headings) - 1,) if title == "ranking" else (0, 1))
        for row in rows:
            out.add_row(*row)
        if rows:
            console.print(out)
        told += notes
    for line in dict.fromkeys(told):
        console.print(escape(line), style="dim", soft_wrap=True)


def print_runs(
    console: Console, title: str, heads: list[str], rows: list[list[str]], wrapped: Iterable[int]
) -> None:
    """Print the main table; as several, one below the other, where it is too wide for one.

    Args:
        console: to print to.
        title: of the table.
        heads: attribute, method, then a heading a number.
        rows: of the same length, the rows of an attribute together.
        wrapped: positions of the columns that fold.
    """
    names = (0, 1)
    left = list(range(len(names), len(heads)))
    unbounded = console.options.update(max_width=UNBOUNDED)
    while left:
        # As many columns as fit; the first one in any case, so that this ends.
        count = len(left)
        while count > 1:
            out = _runs_part(title, heads, rows, [*names, *left[:count]], wrapped)
            if console.measure(out, options=unbounded).maximum <= console.width:
                break
            count -= 1
        console.print(_runs_part(title, heads, rows, [*names, *left[:count]], wrapped))
        left = left[count:]
        title = "the same runs, further numbers"


def _runs_part(
    title: str,
    heads: list[str],
    rows: list[list[str]],
    kept: Sequence[int],
    wrapped: Iterable[int],
) -> Table:
    """The columns `kept` of the main table, which begins with attribute and method."""
    folding = [place for place, column in enumerate(kept) if column in (0, 1, *wrapped)]
    out = _rich([heads[column] for column in kept], title, wrapped=folding)
    before = None
    for row in rows:
        attribute, *others = (row[column] for column in kept)
        if before not in (None, attribute):
            out.add_section()
        # Once a group, as a repeated name is harder to scan.
        out.add_row("" if attribute == before else attribute, *others)
        before = attribute
    return out


def markdown(
    results: Results,
    every: Sequence[Numbers] | None = None,
    style: Style | None = None,
    theme: Theme | None = None,
) -> str:
    """The same tables in Markdown.

    Args:
        results: of all settings.
        every: the numbers of each setting, where they are there already.
        style: which columns, and with how many digits.
        theme: how methods and attributes are written; None: by their names.
    """
    style = style or Style()
    theme = theme or by_name(results, style)
    if every is None:
        every = [numbers_of(name, part) for name, part in results.by_setting()]
    parts = ["# editbench report"]
    for numbers in every:
        table = numbers.table
        columns = style.columns_of(numbers)
        parts.append(f"## {markdown_safe(setting_title(numbers, theme))}")
        parts.append(_pipes(*_runs(table, columns, "plain", theme)))
        told = [
            *missed_bars(numbers.results),
            over_starts(table, theme, style),
            *_floor_lines(table, theme, style),
        ]
        parts += [_sentence(line) for line in told]
        parts.append("Mean over attributes, the same for every method:")
        parts.append(_pipes(*_means(numbers, columns, "plain", theme)))
        parts += [_sentence(line) for line in means_lines(compared_of(numbers, style), theme)]
        for title, headings, rows, notes in _ranks_and_costs(numbers, "plain", style, theme):
            parts += [f"{title[0].upper()}{title[1:]}:", _pipes(headings, rows)] if rows else []
            parts += [_sentence(line) for line in notes]
    # After the settings, since it spans them.
    if tied := dial.table(results):
        rows = [[theme.method(row[0]), *row[1:]] for row in tied[1:]]
        parts += [f"## {dial.title(results)}", _pipes(tied[0], rows), f"{dial.SLOPE}."]
    parts += lines(results, theme)
    parts.append(
        "\n".join(f"- {markdown_safe(line)}" for line in _last_notes(results, theme, style))
    )
    return "\n\n".join(parts).rstrip() + "\n"


def _last_notes(results: Results, theme: Theme, style: Style) -> list[str]:
    """What stands below all tables: what marks mean, what was not done, what cannot be read."""
    table = main_table(results)
    broken = [f"broken: {problem.name}: {problem.reason}" for problem in results.problems]
    told = [*legend(table, quantities(results), theme, style), *not_done(table, theme)]
    return [*told, *doubts(results, theme), *results.notes, *broken]


def world_of(numbers: Numbers, theme: Theme) -> str:
    """The generator of a setting, as it is written."""
    return theme.world(str(numbers.table["generator"].iloc[0]))


def setting_title(numbers: Numbers, theme: Theme) -> str:
    """'Cartoon faces: starts.n 40': the world, and what tells the setting from others in it."""
    world = str(numbers.table["generator"].iloc[0])
    # Where there are several worlds, a setting's name begins with that of its own.
    rest = numbers.name.removeprefix(world).removeprefix(", ")
    return f"{world_of(numbers, theme)}: {rest}" if rest else world_of(numbers, theme)


def floors_of(table: pd.DataFrame, theme: Theme) -> list[str]:
    """The floors in a `main_table`, as they are written."""
    return [theme.method(name) for name in sorted(set(table.loc[table["floor"], "method"]))]


class Missed(NamedTuple):
    """What the card of a world misses.

    Attributes:
        summary: how many bars, without a stop.
        bars: each of them with its figure.
    """

    summary: str
    bars: tuple[str, ...]


def missed_cards(results: Results) -> list[Missed]:
    """Of each world whose card misses bars."""
    # A set, as the runs of a world tell the same, and not its name: it may have been trained anew.
    found = set()
    for run in results.runs.to_dict("records"):
        card = results.provenance.get(run["run_id"], {}).get("world_card") or {}
        if card.get("missed"):
            summary = (
                f"The world {run['generator']} misses {len(card['missed'])} of the {card['bars']} "
                "bars of its card, which say how far its numbers can be trusted (docs/world.md tells "
                "what follows)"
            )
            found.add(Missed(summary, tuple(card["missed"])))
    return sorted(found)


def missed_bars(results: Results) -> list[str]:
    """`missed_cards`, a line each."""
    return [f"{card.summary}: {'; '.join(card.bars)}." for card in missed_cards(results)]


def _sentence(line: str) -> str:
    return markdown_safe(f"{line[0].upper()}{line[1:]}" + ("" if line.endswith(".") else "."))


def _runs(
    table: pd.DataFrame, columns: list[Column], kind: str, theme: Theme
) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the main table."""
    marked = [above_floor(record, columns) for record in table.to_dict("records")]
    heads = ["attribute", "method", *map(heading, columns)]
    rows = []
    for record, mark in zip(table.to_dict("records"), marked):
        row = [theme.attribute(record["attribute"]), _name(record, theme)]
        # rich reads [text] as markup, and marks stand in brackets.
        row = [escape(text) if kind == "terminal" else text for text in row]
        row += _values(record, columns, kind)
        rows.append([*row, mark] if any(marked) else row)
    return [*heads, *([AT_FLOOR] if any(marked) else [])], rows


def _means(
    numbers: Numbers, columns: list[Column], kind: str, theme: Theme
) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the means: each says how many attributes and starts it is over."""
    records = numbers.means.to_dict("records")
    marked = [above_floor(record, columns) for record in records]
    titles = {column.key: column.title for column in columns}
    shown = [metric for metric in numbers.compared if metric in titles]
    heads = ["method", "served", *map(heading, columns)]
    heads += [f"{titles[metric]} over" for metric in shown]
    rows = []
    for record, mark in zip(records, marked):
        name = _name(record, theme)
        row = [
            escape(name) if kind == "terminal" else name,
            f"{record['served']} of {record['asked']}",
            # Why one is missing stands below the table.
            *(_written(replace(cell(record, column), mark=""), kind) for column in columns),
            *(over_what(record, metric) for metric in shown),
        ]
        rows.append([*row, mark] if any(marked) else row)
    return [*heads, *([AT_FLOOR] if any(marked) else [])], rows


def _last(heads: list[str]) -> tuple[int, ...]:
    """The place of the column about the floor, which is text and folds."""
    return (len(heads) - 1,) if heads[-1] == AT_FLOOR else ()


def compared_of(numbers: Numbers, style: Style) -> list[MeanComparison]:
    """What the means are over, of the numbers that the tables show; the ranking shows accuracy, over
    whose attributes all other means are."""
    found = []
    for key, one in numbers.compared.items():
        if key == "accuracy" or (one.measured and style.shows(key)):
            found.append(one)
    return found


def over_starts(table: pd.DataFrame, theme: Theme, style: Style) -> str:
    """What each row of the main table is over."""
    counts = sorted(set(table["n"].dropna().astype(int)))
    # Below it stands what was skipped or failed, with its reason.
    if not counts:
        return "no run is done"
    n = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    seeds = sorted(set(table.loc[table["status"] == "done", "seeds"]))
    several = ", ".join(map(str, seeds))
    pooled = f" and {several} seeds, mean and interval over both" if seeds[-1] > 1 else ", one seed"
    # What no run was asked for has a column without a number.
    known = [key for key in (*OVER_CROSSED, AT_EFFECT) if table[key].notna().any()]
    shown = [key for key in known if style.shows(key)]
    crossed = [title_of(key, theme) for key in OVER_CROSSED if key in shown]
    others = []
    if crossed:
        others.append(f"{' and '.join(crossed)} over the starts that crossed")
    if AT_EFFECT in shown:
        others.append(f"{title_of(AT_EFFECT, theme)} over those that reach its effect")
    told = f"each row: over {n} starts{pooled}"
    return f"{told}; {', '.join(others)}" if others else told


def title_of(key: str, theme: Theme) -> str:
    """How a column is written, its key where it is not one of COLUMNS."""
    return theme.column(key, TITLES.get(key, key))


def _floor_lines(table: pd.DataFrame, theme: Theme, style: Style) -> list[str]:
    """Which methods are floors, and what the marks of the floor mean where a column has them."""
    floors = floors_of(table, theme)
    if not floors:
        return []
    rule = f"; {FLOOR_RULE}" if any(map(style.shows, ABOVE_FLOOR)) else ""
    return [f"floor: {', '.join(floors)}{rule}"]


def csv(results: Results) -> str:
    """`main_table` with full precision, a column a number; empty where there is none."""
    # The column serves the code; the label and the run say it to a reader.
    return main_table(results).drop(columns="variant_of").to_csv(index=False, lineterminator="\n")


def heading(column: Column) -> str:
    """'accuracy ↑'."""
    return column.title + {True: " ↑", False: " ↓", None: ""}[column.better]


def legend(
    table: pd.DataFrame, known: Mapping[str, Quantity], theme: Theme, style: Style
) -> list[str]:
    """What the marks in the table mean.

    Args:
        table: of `main_table`.
        known: `quantities` of the same records.
        theme: how methods and attributes are written.
        style: which columns are shown; of others nothing is said.
    """
    # A dictionary, so that a mark on many rows is explained once.
    found = dict(mark for record in table.to_dict("records") for mark in marks(record))
    lines = [f"{name}: {meaning}" for name, meaning in found.items()]
    effects = sorted(set(table["ad_at_effect"].dropna()))
    if effects and style.shows(AT_EFFECT):
        lines.append(
            f"{title_of(AT_EFFECT, theme)}: at an achieved effect of {', '.join(f'{x:g}' for x in effects)} σ on the target"
        )
    weak = any(not_learned(record) for record in table.to_dict("records"))
    if weak and style.shows("learned"):
        lines.append(NOT_LEARNED_MEANS)
    # A column can be there without a number, and then needs no warning.
    chosen = {key: one for key, one in known.items() if style.shows(key)}
    distances = [key for key, one in chosen.items() if one.metric in FRECHET and key in table]
    if any(table[key].notna().any() for key in distances):
        lines.append(
            "Fréchet distance, FID: that of n pictures lies above that of all, by more where they "
            "vary more; the kernel distance, in table.csv and the figures, has no such bias"
        )
    noted = [f"{key}_note" for key, one in chosen.items() if one.metric not in HIDDEN]
    several = table["setting"].nunique() > 1
    # In the order of the columns, as a reader looks from the table to the note.
    for key in (name for name in table.columns if name in noted):
        with_note = table[key] != ""
        # Most columns have none, and a part of a table this wide takes time even without a row.
        if not with_note.any():
            continue
        for note, group in table[with_note].groupby(key):
            name = key.removesuffix("_note")
            lines.append(f"† {title_of(name, theme)}: {note} ({where(group, theme, several)})")
    return lines


def where(group: pd.DataFrame, theme: Theme, several: bool = False) -> str:
    """'method/attribute, ...' of the first rows, and how many more there are.

    Args:
        group: rows of `main_table`.
        theme: how methods and attributes are written.
        several: whether the rows are of several settings, which are then named.
    """
    found = []
    for method, attribute, setting in zip(group["method"], group["attribute"], group["setting"]):
        name = f"{theme.method(method)}/{theme.attribute(attribute)}"
        found.append(f"{name} ({setting})" if several else name)
    return _some(found)


def not_done(table: pd.DataFrame, theme: Theme) -> list[str]:
    """What was skipped or failed, and seeds that a row lacks.

    Args:
        table: of `main_table`.
        theme: how methods and attributes are written.
    """
    found = []
    several = table["setting"].nunique() > 1
    for row in table[table["reason"] != ""].to_dict("records"):
        state = state_of(row)
        run = f"{theme.method(row['method'])} on {theme.attribute(row['attribute'])}"
        if several:
            run += f" ({row['setting']})"
        found.append(f"{state}: {run}: {row['reason']}")
    return found


def state_of(row: Mapping[Any, Any]) -> str:
    """What became of a row of `main_table` that has a reason: its status, or the seeds it is left with."""
    if row["status"] != "done":
        return str(row["status"])
    return "1 seed only" if row["seeds"] == 1 else f"{row['seeds']} seeds only"


def _ranks_and_costs(
    numbers: Numbers, kind: str, style: Style, theme: Theme
) -> list[tuple[str, list[str], list[list[str]], list[str]]]:
    """(title, headings, rows, notes) of the ranking and of the costs of one setting."""

    def safe(text: object) -> str:
        return escape(str(text)) if kind == "terminal" else str(text)

    ranked = numbers.ranked
    accuracy = style.column_of(COLUMNS[0])
    ranks = [
        [
            row["rank"],
            safe(theme.method(row["method"])),
            _written(cell(row, accuracy), kind),
            safe(_some([theme.method(name) for name in ranked.ties[row["method"]]])) or MISSING,
        ]
        for row in ranked.table.to_dict("records")
    ]
    shown = style.costs_of(numbers)
    costs = [
        [
            safe(_name(row, theme)),
            over_what(row, "accuracy"),
            *(cell(row, column).text for column in shown),
        ]
        for row in numbers.costs.to_dict("records")
    ]
    return [
        (
            "ranking",
            ["rank", "method", heading(accuracy), "not separated from"],
            ranks,
            ranking_lines(ranked, theme),
        ),
        (f"costs: {SUMMED}", ["method", "over", *map(heading, shown)], costs if shown else [], []),
    ]


def _some(names: list[str]) -> str:
    """The first NAMED names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _values(record: dict, columns: list[Column], kind: str) -> list[str]:
    status = record.get("status", "done")
    if status != "done":
        # The status takes the first number's place, so that a gap is never left unexplained.
        return [status, *[""] * (len(columns) - 1)][: len(columns)]
    return [_written(cell(record, column), kind) for column in columns]


def _written(value: Cell, kind: str) -> str:
    text = value.text + ("†" if value.mark else "") + (f" {value.tag}" if value.tag else "")
    if not value.interval:
        return text
    return (
        f"{text} [dim]{value.interval}[/dim]"
        if kind == "terminal"
        else f"{text} ({value.interval})"
    )


def _name(record: dict, theme: Theme) -> str:
    return theme.method(record["method"]) + "".join(f" [{mark}]" for mark, _ in marks(record))


def _rich(headings: list[str], title: str, wrapped: Iterable[int] = (0, 1)) -> Table:
    """The columns in `wrapped` are text and fold; the others are numbers."""
    wrapped = tuple(wrapped)
    # Names of settings, metrics and columns come from records and from the user.
    out = Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
    )
    for position, text in enumerate(headings):
        out.add_column(
            escape(text),
            justify="left" if position in (0, 1, *wrapped) else "right",
            # A number that is broken over two lines can be misread.
            no_wrap=position not in wrapped,
            overflow="fold",
        )
    return out


def _pipes(headings: list[str], rows: list[list[str]]) -> str:
    rule = ["---", "---", *["---:"] * (len(headings) - 2)]
    return "\n".join(
        "| " + " | ".join(map(markdown_safe, row)) + " |" for row in [headings, rule, *rows]
    )
