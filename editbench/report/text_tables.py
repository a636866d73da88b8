"""Tables as text, for the terminal, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from editbench.base.progress import results_console
from editbench.figures.theme import Theme
from editbench.report import dial
from editbench.report.caveats import caveats
from editbench.report.cells import (
    COLUMNS,
    MISSING,
    Cell,
    Column,
    capitalised,
    cell,
    floor_marks,
    markdown_safe,
    marks,
)
from editbench.report.costs import describe_costs
from editbench.report.load import Results
from editbench.report.notes import (
    legend,
    means_notes,
    not_done,
    run_notes,
    setting_title,
    some,
    state_of,
)
from editbench.report.numbers import Numbers, numbers_of
from editbench.report.published import WHY, published, reasons
from editbench.report.ranking import describe_ranking
from editbench.report.style import Style
from editbench.report.tables import main_table

UNBOUNDED = 10_000  # characters; wider than any table
WIDE = 140  # least width of a terminal, in characters, to show the costs too


@dataclass(frozen=True)
class TextTable:
    """The content of a table for the terminal or Markdown.

    Attributes:
        title: of the table.
        heads: of the columns.
        rows: texts and numbers; a table without rows is left out.
        notes: lines below the table.
        folds: positions of the columns that a terminal may wrap; wrapped numbers could be misread.
        names: number of leading columns that name a row. They are repeated in every part of a table
            that is too wide.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    notes: Sequence[str] = ()
    folds: Sequence[int] = (0, 1)
    names: int = 2

    def part(self, places: Sequence[int]) -> TextTable:
        """A table of some of the columns, by position."""
        return replace(
            self,
            heads=[self.heads[k] for k in places],
            rows=[[row[k] for k in places] for row in self.rows],
            folds=[place for place, k in enumerate(places) if k in self.folds],
        )


def print_table(
    results: Results,
    console: Console | None = None,
    every: Sequence[Numbers] | None = None,
    style: Style | None = None,
) -> None:
    """Print the main table by attribute, the methods' means, and what was not done and why.

    Methods and attributes have their names, as on the command line, not their titles.

    Args:
        results: of all settings.
        console: to print to; None for standard output.
        every: the numbers of each setting, if already computed.
        style: columns and digits.
    """
    style = style or Style()
    theme = by_name(results, style)
    console = console or results_console()
    for numbers in every or _every(results):
        columns = style.columns_of(numbers)
        if console.width < WIDE:
            # A narrow terminal shows only the interval of the main number. Columns that the user
            # chose are kept, and the table is printed in parts if necessary.
            columns = [
                replace(column, interval=column.key == "accuracy")
                for column in columns
                if column.narrow or column.key in style.columns
            ]
        runs, *others = tables_of(numbers, columns, theme, style)
        print_parts(console, replace(runs, title=f"editbench: {runs.title}"), grouped=True)
        for table in others:
            if table.rows:
                print_parts(console, table)
        notes = [note for table in (runs, *others) for note in table.notes]
        for note in dict.fromkeys(notes):
            console.print(escape(note), style="dim", soft_wrap=True)
    if slopes := dial.table(results):
        title = f"{dial.title(results).lower()}, smallest slope first"
        console.print(_rich(TextTable(title, slopes[0], slopes[1:], folds=(0,), names=1)))
        console.print(dial.SLOPE, style="dim", soft_wrap=True)
    for line in _last_notes(results, theme, style):
        console.print(escape(line), style="dim", soft_wrap=True)


def _every(results: Results) -> list[Numbers]:
    return [numbers_of(name, part) for name, part in results.by_setting()]


def by_name(results: Results, style: Style) -> Theme:
    """A theme with the names of methods and attributes, and the titles of columns.

    Args:
        results: gives the attributes.
        style: gives the titles of columns that a user chose.
    """
    attributes = {name: name for name in sorted(set(results.runs["attribute"]))}
    return Theme({}, attributes, columns=style.titles)


def print_parts(console: Console, table: TextTable, grouped: bool = False) -> None:
    """Print a table, in several parts if it is too wide for the console.

    Every part has the columns that name the rows. A column that alone is too wide is wrapped.

    Args:
        console: to print to.
        table: to print.
        grouped: whether rows with the same first text form a section.
    """
    unbounded = console.options.update(max_width=UNBOUNDED)
    names = range(table.names)
    left = range(table.names, len(table.heads))
    while left:
        # As many columns as fit, but at least one.
        for count in range(len(left), 0, -1):
            shown = _rich(table.part([*names, *left[:count]]), grouped)
            if console.measure(shown, options=unbounded).maximum <= console.width:
                break
        console.print(shown)
        left = left[count:]
        table = replace(table, title="the same rows, further columns")


def _rich(table: TextTable, grouped: bool = False) -> Table:
    """A table for the terminal.

    Args:
        table: its columns are numbers, except for those that name a row or may be wrapped.
        grouped: whether rows with the same first text form a section.
    """
    # Names of settings, metrics and columns come from records and from the user, so they are
    # escaped.
    out = Table(
        title=escape(table.title),
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
    )
    for place, head in enumerate(table.heads):
        out.add_column(
            escape(head),
            justify="left" if place < table.names or place in table.folds else "right",
            no_wrap=place not in table.folds,
            overflow="fold",
        )
    before = None
    for first, *others in table.rows:
        if grouped and before not in (None, first):
            out.add_section()
        # Shown once per group, which is easier to read.
        shown = "" if grouped and first == before else first
        # rich would interpret marks in brackets as markup.
        out.add_row(*(_written(value, " [dim]{}[/dim]", escape) for value in (shown, *others)))
        before = first
    return out


def _written(value: str | Cell, interval: str, safe: Callable[[str], str]) -> str:
    """A value of a table as text.

    Args:
        value: of the table.
        interval: format of a number's interval.
        safe: escapes text.
    """
    if isinstance(value, str):
        return safe(value)
    text = value.text + ("†" if value.mark else "") + (f" {value.tag}" if value.tag else "")
    return safe(text) + (interval.format(safe(value.interval)) if value.interval else "")


def markdown(
    results: Results,
    every: Sequence[Numbers] | None = None,
    style: Style | None = None,
    theme: Theme | None = None,
) -> str:
    """The tables in Markdown.

    Args:
        results: of all settings.
        every: the numbers of each setting, if already computed.
        style: columns and digits.
        theme: how methods and attributes are written; None for their names.
    """
    style = style or Style()
    theme = theme or by_name(results, style)
    parts = ["# editbench report"]
    for numbers in every or _every(results):
        runs, *others = tables_of(numbers, style.columns_of(numbers), theme, style)
        parts += [f"## {markdown_safe(runs.title)}", _pipes(runs), *map(_sentence, runs.notes)]
        for table in others:
            if table.rows:
                parts += [f"{capitalised(table.title)}:", _pipes(table)]
            parts += map(_sentence, table.notes)
    # After the settings, since a dial is over several settings.
    if slopes := dial.table(results):
        rows = [[theme.method(row[0]), *row[1:]] for row in slopes[1:]]
        shown = TextTable(dial.title(results), slopes[0], rows, names=1)
        parts += [f"## {shown.title}", _pipes(shown), f"{dial.SLOPE}."]
    parts += published_markdown(results, theme)
    parts.append(
        "\n".join(f"- {markdown_safe(line)}" for line in _last_notes(results, theme, style))
    )
    return "\n\n".join(parts).rstrip() + "\n"


def published_markdown(results: Results, theme: Theme) -> list[str]:
    """The numbers of papers next to those of the records: a heading, a table and reasons of each.

    Args:
        results: of all settings.
        theme: how methods and attributes are written.
    """
    parts = []
    for one in published(results, theme):
        heading = f"Published: {one.source} ({one.setting}), {one.title}"
        if not one.rows:
            parts.append(markdown_safe(f"{heading}: the numbers are not in the paper's text"))
            continue
        parts.append(markdown_safe(heading))
        # There is a column of settings only if there are several.
        names = ["method", "attribute"]
        if one.has_settings:
            names = ["setting", *names]
        rows = [[row[name] for name in (*names, "paper", "ours")] for row in one.rows]
        parts.append(_pipes(TextTable(heading, [*names, "paper", "here"], rows, names=len(names))))
        if lines := reasons(one):
            parts.append("\n".join([f"{WHY}:", "", *(f"- {markdown_safe(x)}" for x in lines)]))
    return parts


def _pipes(table: TextTable) -> str:
    rule = [*["---"] * table.names, *["---:"] * (len(table.heads) - table.names)]
    lines = []
    for row in (table.heads, rule, *table.rows):
        lines.append(f"| {' | '.join(_written(value, ' ({})', markdown_safe) for value in row)} |")
    return "\n".join(lines)


def _sentence(line: str) -> str:
    return markdown_safe(capitalised(line) + ("" if line.endswith(".") else "."))


def csv(results: Results) -> str:
    """`main_table` as CSV with full precision; a missing number is an empty field."""
    # The label already contains the method's name.
    return main_table(results).drop(columns="variant_of").to_csv(index=False, lineterminator="\n")


def tables_of(
    numbers: Numbers, columns: Sequence[Column], theme: Theme, style: Style
) -> list[TextTable]:
    """The tables of a setting: the main table, means, ranking and costs.

    Args:
        numbers: of the setting.
        columns: of the main table and of the means.
        theme: how methods, attributes and worlds are written.
        style: columns and digits.
    """
    return [
        _runs(numbers, columns, theme, style),
        _means(numbers, columns, theme, style),
        _ranking(numbers, theme, style),
        _costs(numbers, theme, style),
    ]


def _runs(numbers: Numbers, columns: Sequence[Column], theme: Theme, style: Style) -> TextTable:
    floors = floor_marks(numbers.floors)
    rows = []
    for record in numbers.table.to_dict("records"):
        cells: list[str | Cell] = [_marked(cell(record, column), floors) for column in columns]
        if record["status"] != "done":
            # The state is in the place of the first number, to explain the missing numbers.
            state: list[str | Cell] = [state_of(record), *[""] * len(columns)]
            cells = state[: len(columns)]
        rows.append([theme.attribute(record["attribute"]), _name(record, theme), *cells])
    heads = ["attribute", "method", *(column.heading for column in columns)]
    return TextTable(setting_title(numbers, theme), heads, rows, run_notes(numbers, theme, style))


def _means(numbers: Numbers, columns: Sequence[Column], theme: Theme, style: Style) -> TextTable:
    """The table of means. Its notes say which attributes and starts they are over."""
    floors = floor_marks(numbers.floors)
    heads = ["method", "attributes", *(column.heading for column in columns)]
    rows = []
    for record in numbers.means.to_dict("records"):
        row: list[str | Cell] = [_name(record, theme), f"{record['served']} of {record['asked']}"]
        for column in columns:
            # The reason of a missing mean is below the table.
            row.append(replace(_marked(cell(record, column), floors), mark=""))
        rows.append(row)
    title = "means over the same attributes and starts for every method"
    return TextTable(title, heads, rows, means_notes(numbers, theme, style))


def _marked(value: Cell, floors: Mapping[str, str]) -> Cell:
    """A number with the marks of the floors that it is not clear of.

    Args:
        value: the number.
        floors: floor -> its mark.
    """
    # Floors may share a mark.
    found = dict.fromkeys(floors[name] for name in value.floors)
    return replace(value, text=value.text + "".join(found))


def _ranking(numbers: Numbers, theme: Theme, style: Style) -> TextTable:
    ranked = numbers.ranked
    accuracy = style.column_of(COLUMNS[0])
    rows = []
    for row in ranked.table.to_dict("records"):
        ties = [theme.method(name) for name in ranked.ties[row["method"]]]
        method = theme.method(row["method"])
        rows.append([row["rank"], method, cell(row, accuracy), some(ties) or MISSING])
    heads = ["rank", "method", accuracy.heading, "tied with"]
    # Only ties, a list of names, may be wrapped.
    return TextTable("ranking", heads, rows, describe_ranking(ranked, theme), folds=(3,))


def _costs(numbers: Numbers, theme: Theme, style: Style) -> TextTable:
    shown = style.costs_of(numbers)
    rows = []
    for row in numbers.costs.to_dict("records") if shown else ():
        costs = [cell(row, column).text for column in shown]
        rows.append([_name(row, theme), *costs])
    heads = ["method", *(column.heading for column in shown)]
    notes = [f"costs: {describe_costs(shown)}"] if shown else []
    return TextTable("costs", heads, rows, notes, folds=(0,), names=1)


def _name(record: dict, theme: Theme) -> str:
    return theme.method(record["method"]) + "".join(f" [{mark}]" for mark, _ in marks(record))


def _last_notes(results: Results, theme: Theme, style: Style) -> list[str]:
    """The lines below all tables: meanings of marks, what was not done, what cannot be read."""
    table = main_table(results)
    broken = [f"broken: {problem.name}: {problem.reason}" for problem in results.problems]
    notes = [*legend(table, results, theme, style), *not_done(table, theme)]
    return [*notes, *caveats(results, theme), *results.notes, *broken]
