"""The LaTeX tables of a report: what each contains. editbench.report.typeset turns it into LaTeX.

The comments of a table say what was run, which keeps the caption short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata

import pandas as pd

from editbench.figures.theme import Theme, display_name
from editbench.report.caveats import caveats
from editbench.report.cells import (
    COLUMNS,
    LEAST_LEARNED,
    MISSING,
    Cell,
    Column,
    capitalised,
    cell,
    floor_marks,
    is_bold,
    marks,
    not_learned,
    over_what,
)
from editbench.report.costs import describe_costs
from editbench.report.facts import facts
from editbench.report.load import Results
from editbench.report.means import MeanComparison, counted
from editbench.report.no_control import SHARES
from editbench.report.notes import (
    NEVER_BOLD,
    NO_CONTROL_MEANS,
    NOT_LEARNED_MEANS,
    floor_legend,
    missed_cards,
    not_done,
    state_of,
    where,
)
from editbench.report.numbers import Numbers
from editbench.report.paired import SIGNIFICANCE, find_leaders
from editbench.report.references import Cited
from editbench.report.style import Style
from editbench.report.tables import AT_EFFECT
from editbench.report.typeset import Grid, Line, escape, typeset_table

BOLD = (
    "Bold: the best value of a column and all values that are not significantly worse. A value is "
    "significantly worse if its paired bootstrap test over starts against the best has an adjusted p "
    f"below {SIGNIFICANCE:g} (Holm), or if the two intervals do not overlap. Of the means, only those "
    "of accuracy are tested."
)
# Descriptions of the number in a table of methods and attributes, for its caption.
WHAT = {
    "accuracy": "Accuracy: share of starts that reach the target class while every other attribute "
    "keeps its class, judged at the first crossing; higher is better",
    AT_EFFECT: "Attribute dependency (AD): mean change of the other attributes, in σ, at an "
    "achieved effect of {effect} σ on the target, over the starts that reach it (with every seed); "
    "lower is better",
    "learned": "AUC: how well the score that a method learned ranks the tune split by the teacher's "
    "labels (with more than two classes, the mean of each against the rest); 0.5 is chance",
}
# Columns that have the mark ‡.
OF_LEARNED = ("accuracy", AT_EFFECT, "learned")


@dataclass(frozen=True)
class TableContext:
    """What all tables of one setting share.

    Attributes:
        numbers: of the setting.
        theme: how methods, attributes and worlds are written.
        style: of the report.
        suffix: of files and labels.
        comments: what was run, and the papers.
    """

    numbers: Numbers
    theme: Theme
    style: Style = field(default_factory=Style)
    suffix: str = ""
    comments: Sequence[str] = ()

    @property
    def floors(self) -> dict[str, str]:
        """Floor -> its mark."""
        return floor_marks(self.numbers.floors)

    def name(self, record: Mapping) -> str:
        """A method with its marks."""
        return self.theme.method(record["method"]) + "".join(f" [{m}]" for m, _ in marks(record))


def tables(
    numbers: Numbers,
    theme: Theme,
    style: Style | None = None,
    cited: Cited | None = None,
    suffix: str = "",
) -> dict[str, str]:
    """LaTeX of one setting's tables, except those without numbers.

    Args:
        numbers: of the setting.
        theme: how methods, attributes and worlds are written.
        style: columns, digits, captions, labels, width.
        cited: papers, named in a comment.
        suffix: makes labels unique, so that a document can have tables of several settings.

    Returns:
        Name of the table (editbench.report.style.LATEX_TABLES) -> its text.
    """
    style = style or Style()
    context = TableContext(numbers, theme, style, suffix, _comments(numbers, theme, cited))
    grids: dict[str, Grid | None] = {}
    for column in COLUMNS:
        wanted = column.key in WHAT and style.shows(column.key)
        if wanted and numbers.table[column.key].notna().any():
            # For the column ad_at, the file and label are named ad.
            name = "ad" if column.key == AT_EFFECT else column.key
            grids[name] = _attribute_table(context, style.column_of(column))
    grids["means"] = _means_table(context)
    grids["cost"] = _cost_table(context)
    grids["ranking"] = _ranking_table(context)
    found: dict[str, str] = {}
    # Below every table, since a document may contain only one of them.
    missed = [card.summary for card in missed_cards(numbers.results)]
    for name, grid in grids.items():
        if grid is None:
            continue
        # Other notes that concern all tables are only below the first, which has the main number.
        shared = [] if found else _notes_of_all(context)
        found[name] = _float(context, name, replace(grid, notes=[*missed, *shared, *grid.notes]))
    return found


# -- the tables ----------------------------------------------------------------------------------
def _notes_of_all(context: TableContext) -> list[str]:
    """Notes about jobs that were not done, the meanings of marks, and caveats."""
    numbers = context.numbers
    found = not_done(numbers.table, context.theme)
    # A dictionary, so that a mark on many rows is explained once.
    meanings = dict(mark for record in numbers.means.to_dict("records") for mark in marks(record))
    found += [f"{name}: {meaning}" for name, meaning in meanings.items()]
    return [*found, *caveats(numbers.results, context.theme)]


def _attribute_table(context: TableContext, column: Column) -> Grid:
    """Methods x attributes, and the mean: values, with their intervals below."""
    numbers = context.numbers
    table = numbers.table
    attributes = list(dict.fromkeys(table["attribute"]))
    means = {row["method"]: row for row in numbers.means.to_dict("records")}
    records = {(row["method"], row["attribute"]): row for row in table.to_dict("records")}
    # Numbers without a comparison of their own are averaged over the attributes of accuracy.
    compared = numbers.compared.get(column.key, numbers.compared["accuracy"])
    # Each attribute has its own paired tests, so each column has its leaders. Of the means, only
    # that of accuracy has a test.
    leaders = {a: _leaders(numbers, a, column) for a in attributes}
    leading_means = numbers.ranked.leaders if column.key == "accuracy" else frozenset()
    rows = []
    for method in numbers.order:
        cells = []
        for attribute in attributes:
            record = records.get((method, attribute))
            cells.append(_cell(record, column, method in leaders[attribute], context.floors))
        if compared.values:
            cells.append(_cell(means.get(method), column, method in leading_means, context.floors))
        rows.append((context.name(means[method]), cells))
    heads = ["method", *map(context.theme.attribute, attributes)]
    if compared.values:
        heads.append("mean")
    what = WHAT[column.key].format(effect=_effects(table))
    caption = [f"{what}{_over(table, column.interval, column.key)}."]
    caption.append(_mean(context, compared, of_starts=column.key != "learned"))
    return Grid(caption, heads, rows, _cell_notes(context, column, compared))


def _cell_notes(context: TableContext, column: Column, compared: MeanComparison) -> list[str]:
    """The meanings of the cells' marks, and the methods without a mean."""
    table = context.numbers.table
    notes = []
    noted = table[table["status"] == "done"]
    # The column `learned` has no notes.
    if f"{column.key}_note" in noted:
        noted = noted[noted[f"{column.key}_note"] != ""]
        for note, group in noted.groupby(f"{column.key}_note"):
            notes.append(f"†{note} ({where(group, context.theme)})")
    weak = table[(table["status"] == "done") & (table["learned"] < LEAST_LEARNED)]
    if len(weak) and column.key in OF_LEARNED:
        notes.append(f"‡{NOT_LEARNED_MEANS} ({where(weak, context.theme)})")
    if column.key in SHARES:
        notes += _without_control(context)
    # The caption has notes on all methods; these are on single methods.
    for method, why in compared.left(context.theme).items():
        notes.append(f"no mean for {context.theme.method(method)}: {why}")
    return notes


def _without_control(context: TableContext) -> list[str]:
    """What it means that some seeds or methods found no control, and which ones."""
    table = context.numbers.table
    found = table[table["no_control"] > 0]
    return [f"{NO_CONTROL_MEANS} ({where(found, context.theme)})"] if len(found) else []


def _means_table(context: TableContext) -> Grid | None:
    """Methods x numbers, as means over attributes; None if there are no numbers."""
    numbers = context.numbers
    means = numbers.means
    columns = [
        column
        for column in context.style.columns_of(numbers)
        if column.key in means
        and means[column.key].notna().any()
        # By default without the costs, which have their own table.
        and (column.narrow or column.key in context.style.columns)
    ]
    if not columns:
        return None
    records = means.to_dict("records")
    rows = []
    for row in records:
        leads = row["method"] in numbers.ranked.leaders
        cells = []
        for column in columns:
            cells.append(_cell(row, column, leads and column.key == "accuracy", context.floors))
        rows.append((context.name(row), cells))
    intervals = any(column.interval for column in columns)
    caption = [f"Means over attributes{_over(numbers.table, intervals)}."]
    for column in columns:
        if column.hint:
            effect = f" ({_effects(numbers.table)} σ)" if column.key == AT_EFFECT else ""
            caption.append(f"{capitalised(column.title)}: {column.hint}{effect}.")
    over = {}
    for column in columns:
        # AD has its own attributes; all other numbers have those of accuracy.
        if column.key == AT_EFFECT:
            over[f"Mean {column.title}"] = numbers.compared[AT_EFFECT]
        else:
            over["Mean"] = numbers.compared["accuracy"]
    caption += [_mean(context, compared, title) for title, compared in over.items()]
    notes = []
    weak = [context.theme.method(row["method"]) for row in records if not_learned(row)]
    if weak and any(column.key in OF_LEARNED for column in columns):
        notes.append(f"‡{NOT_LEARNED_MEANS} ({', '.join(weak)})")
    if any(column.key in SHARES for column in columns):
        notes += _without_control(context)
    heads = ["method", *(column.heading for column in columns)]
    return Grid(caption, heads, rows, notes)


def _cost_table(context: TableContext) -> Grid | None:
    costs = context.numbers.costs.to_dict("records")
    shown = context.style.costs_of(context.numbers)
    if not shown:
        return None
    rows = []
    for row in costs:
        cells = [(Line(cell(row, column).text),) for column in shown]
        rows.append((context.name(row), cells))
    known = [row for row in costs if row["accuracy_attributes"]]
    over = f" ({over_what(known[0], 'accuracy')})" if known else ""
    hints = "; ".join(f"{column.title}: {column.hint}" for column in shown)
    caption = [
        f"Costs: {describe_costs(shown)}{over}. {hints}. Measured once per run, on one machine; not "
        "tested."
    ]
    return Grid(caption, ["method", *(column.heading for column in shown)], rows)


def _ranking_table(context: TableContext) -> Grid | None:
    ranked = context.numbers.ranked
    if not len(ranked.table):
        return None
    number = context.style.column_of(COLUMNS[0])
    methods = ranked.table["method"].tolist()
    rows = []
    for k, row in enumerate(ranked.table.to_dict("records"), 1):
        mean = cell(row, number)
        ties = sorted(methods.index(name) + 1 for name in ranked.ties[row["method"]])
        cells = [
            (Line(row["rank"]),),
            (Line(mean.text), Line(mean.interval, small=True)),
            (Line(_ranges(ties) or MISSING),),
        ]
        rows.append((f"{k}. {context.theme.method(row['method'])}", cells))
    heads = ["method", "rank", "accuracy", "ties"]
    caption = [
        f"Methods by mean accuracy{_over(context.numbers.table, number.interval)}.",
        _mean(context, ranked.compared),
        "A rank is a range if the paired bootstrap over starts does not determine it (adjusted p "
        f"below {SIGNIFICANCE:g}, Holm). Ties: numbers of the methods from which a method does not "
        "differ significantly. Floors have no rank.",
    ]
    left = []
    for method, why in ranked.compared.left(context.theme).items():
        left.append(f"not ranked: {context.theme.method(method)}: {why}")
    return Grid(caption, heads, rows, left)


def _float(context: TableContext, name: str, grid: Grid) -> str:
    """The LaTeX of a table, with its caption, label and comments.

    Args:
        context: what all tables share.
        name: of the table.
        grid: its content.
    """
    style = context.style
    sentences = [part for part in grid.caption if part]
    # Only marks that are in the table are explained.
    has_bold = any(line.form == "textbf" for line in grid.lines)
    if has_bold:
        sentences.append(BOLD)
    texts = "".join(line.text for line in grid.lines)
    marked = {name: mark for name, mark in context.floors.items() if mark in texts}
    if marked and has_bold:
        sentences.append(NEVER_BOLD)
    if marked:
        sentences.append(floor_legend(marked, context.theme))
    made = escape(" ".join(sentences))
    comments = list(context.comments)
    if name in style.captions:
        comments.append(f"Generated caption: {made}")
    label = style.labels.get(name, f"tab:{name}") + context.suffix
    return typeset_table(grid, style.captions.get(name, made), label, style.column, comments)


# -- parts of a caption --------------------------------------------------------------------------
def _over(table: pd.DataFrame, intervals: bool, key: str = "accuracy") -> str:
    """'; over 150 starts per attribute and 1 to 3 seeds, with the 95 % interval below'.

    Args:
        table: `main_table` of one setting.
        intervals: whether the cells have intervals.
        key: column of the number.
    """
    counts = sorted(set(table["n"].dropna().astype(int)))
    seeds = sorted(set(table.loc[table["status"] == "done", "seeds"]))
    if not counts:
        return ""
    several = seeds[-1] > 1
    # What a method learned is measured on the tune split, not on starts.
    if key == "learned":
        text = f"over {_span(seeds)} seeds" if several else "one seed"
    else:
        # AD is over only the starts that reach the effect, as the text before this one says.
        word = "out of" if key == AT_EFFECT else "over"
        seeds_text = f" and {_span(seeds)} seeds" if several else ", one seed"
        starts = "start" if counts[-1] == 1 else "starts"
        text = f"{word} {_span(counts)} {starts} per attribute{seeds_text}"
    interval = ", with the 95 % interval below" if intervals else ""
    return f"; {text}{interval}"


def _effects(table: pd.DataFrame) -> str:
    """The achieved effects, in σ, at which AD is measured: '0.5'."""
    return ", ".join(f"{x:g}" for x in sorted(set(table["ad_at_effect"].dropna())))


def _span(values: Sequence[int]) -> str:
    ends = [f"{value:,}" for value in (values[0], values[-1])]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _mean(
    context: TableContext, compared: MeanComparison, title: str = "Mean", of_starts: bool = True
) -> str:
    """What the means are over, or why there are none.

    Args:
        context: what all tables share.
        compared: what the means are over.
        title: of the means.
        of_starts: whether the numbers are means over starts too.
    """
    if not compared.values:
        return f"{capitalised(compared.note(context.theme))}."
    names = context.theme.join_attributes(compared.attributes)
    over = (
        compared.over
        if of_starts
        else f"{len(compared.values)} of {counted(compared.asked, 'attribute')}"
    )
    return f"{title}: over {over} ({names}), the same for every method."


def _ranges(places: Sequence[int]) -> str:
    """Shorten ascending numbers: '1–3, 7' for 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


# -- cells ---------------------------------------------------------------------------------------
def _leaders(numbers: Numbers, attribute: str, column: Column) -> set[str]:
    """The methods that lead in a column; see `find_leaders`."""
    records = numbers.table[numbers.table["attribute"] == attribute].to_dict("records")
    pairs = numbers.paired[
        (numbers.paired["attribute"] == attribute) & (numbers.paired["metric"] == column.key)
    ]
    return find_leaders(pairs, records, column.key, bool(column.better), numbers.floors)


def _cell(
    record: Mapping | None, column: Column, leads: bool, floors: Mapping[str, str]
) -> tuple[Line, ...]:
    """The value with its marks, and its interval below.

    Args:
        record: row of the main table or of the means; None if there is none.
        column: what is shown.
        leads: whether the method leads in this column.
        floors: floor -> mark.
    """
    if record is None:
        return (Line(MISSING),)
    # Rows of means have no status; all their runs are done.
    if record.get("status", "done") != "done":
        return (Line(state_of(record), "emph"),)
    value = cell(record, column)
    below = "".join(floors[name] for name in value.floors)
    text = value.text + _marks_of(record, value, column) + below
    lines = [Line(text, "textbf" if is_bold(value, leads) else "")]
    if value.interval:
        # Smaller type keeps the column narrow and emphasises the value.
        lines.append(Line(value.interval, small=True))
    return tuple(lines)


def _marks_of(record: Mapping, value: Cell, column: Column) -> str:
    """The marks of a cell: † for a note, ‡ for not learnt."""
    # A mean gets no dagger, since the reason of a missing mean is below the table.
    found = "†" if value.mark and "status" in record else ""
    if column.key in OF_LEARNED and not_learned(record):
        found += "‡"
    return found


# -- comments ------------------------------------------------------------------------------------
def _comments(numbers: Numbers, theme: Theme, cited: Cited | None) -> list[str]:
    """Lines that say what was run, and the papers."""
    results = numbers.results
    records = sum(len(run_ids) for run_ids in results.runs["run_ids"])
    lines = [
        f"Made by editbench {metadata.version('editbench')} from {counted(records, 'record')}."
    ]
    lines += [f"{term}: {text}." for term, text in facts(numbers, theme)]
    setting = str(numbers.table["setting"].iloc[0])
    if setting:
        lines.append(f"Setting: {setting}.")
    papers = _papers(results, theme, cited) if cited else ""
    if papers:
        lines.append(f"Papers, in references.bib: {papers}.")
    lines.append(r"Needs \usepackage{booktabs}; in lines narrower than the table also {graphicx}.")
    return lines


def _papers(results: Results, theme: Theme, cited: Cited) -> str:
    r"""'GradCtrl \cite{chen2022gradctrl}; ...' for everything that has a paper."""
    runs = results.runs
    # Pairs, since a method, a world and a metric may have the same title.
    named = [(theme.method(name), cited.methods[name]) for name in sorted(set(runs["label"]))]
    named += [(theme.world(name), cited.worlds[name]) for name in sorted(set(runs["generator"]))]
    named += [(display_name(name), keys) for name, keys in cited.metrics.items()]
    return "; ".join(rf"{name} \cite{{{','.join(keys)}}}" for name, keys in named if keys)
