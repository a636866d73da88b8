"""LaTeX tables for a paper. All text from records is escaped, and widths fit the paper's columns.

A fragment needs booktabs, and graphicx if the table is wider than a line of the document. Its
comments say what was run, which keeps the caption short.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from itertools import zip_longest
from typing import NamedTuple

import pandas as pd

from editbench.figures.theme import Theme, display_name
from editbench.report.caveats import caveats
from editbench.report.cells import (
    COLUMNS,
    FLOOR_MARKS,
    LEAST_LEARNED,
    MISSING,
    Cell,
    Column,
    cell,
    floor_marks,
    marks,
    not_learned,
    over_what,
)
from editbench.report.costs import SUMMED
from editbench.report.html import facts
from editbench.report.load import Results
from editbench.report.means import MeanComparison
from editbench.report.notes import (
    NOT_LEARNED_MEANS,
    floor_legend,
    missed_cards,
    not_done,
    where,
)
from editbench.report.numbers import Numbers
from editbench.report.paired import SIGNIFICANCE, find_leaders
from editbench.report.paper import WIDTHS
from editbench.report.references import Cited
from editbench.report.style import Style
from editbench.report.tables import AT_EFFECT

POINTS = 72.27  # TeX points per inch
COLSEP = 4.0  # points on either side of a column
# Characters of a method's name on the first line; the rest is on the line of the interval.
NAME = {"one": 16, "two": 30}
# Estimated widths in points of letters of Computer Modern at \\footnotesize (8 points), and of
# narrow ones. If a table is still wider than its line, it is scaled down.
LETTER = 4.3
NARROW = {letter: 2.6 for letter in ".,:;!|()[]' iljtf"}
WIDE = {letter: 6.4 for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZmw%"}
SLACK = 1.08  # a table at most this much wider than its line is scaled; type stays above 7 points
SMALL = 7 / 8  # \\scriptsize relative to \\footnotesize
# LaTeX's special characters, and symbols of these tables whose Unicode pdfLaTeX rejects. A [ or *
# at the beginning of a line would be read as an argument of the preceding line end.
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "σ": r"$\sigma$",
    "ρ": r"$\rho$",
    "λ": r"$\lambda$",
    "κ": r"$\kappa$",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\to$",
    "·": r"$\cdot$",
    "†": r"\textsuperscript{\dag}",
    "‡": r"\textsuperscript{\ddag}",
    **{mark: rf"\textsuperscript{{{letter}}}" for mark, letter in zip(FLOOR_MARKS, "abcdefgh")},
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "\u00a0": "~",
}
# Without fontenc and inputenc: LuaLaTeX and Tectonic do not need them, and pdfLaTeX reads UTF-8 by
# default since 2018.
PREAMBLE = r"""\documentclass[10pt,twocolumn]{article}
\usepackage[a4paper,textwidth=6.9in,textheight=9.6in,columnsep=0.3in]{geometry}
\usepackage{booktabs,graphicx}
\begin{document}
"""
# Text before and after a tabular, which scales it down if the document has narrower lines.
FIT = (
    r"\sbox0{",
    r"}\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
)
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


class Line(NamedTuple):
    """One line of a cell.

    Attributes:
        text: without LaTeX markup.
        form: LaTeX command around it, such as textbf; '' for none.
        small: whether it is in smaller type.
    """

    text: str
    form: str = ""
    small: bool = False

    @property
    def latex(self) -> str:
        text = escape(self.text)
        if self.form:
            text = rf"\{self.form}{{{text}}}"
        return rf"{{\scriptsize {text}}}" if self.small and text else text

    @property
    def points(self) -> float:
        """Its approximate width in points."""
        letters = sum(NARROW.get(one, WIDE.get(one, LETTER)) for one in self.text)
        return letters * (SMALL if self.small else 1.1 if self.form else 1.0)


@dataclass(frozen=True)
class Grid:
    """The content of a table.

    Attributes:
        caption: its sentences.
        heads: of the columns, beginning with that of the names.
        rows: (name, cells); a cell has one or more lines.
        notes: lines below the table.
    """

    caption: Sequence[str]
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[Line, ...]]]]
    notes: Sequence[str] = ()

    @property
    def lines(self) -> list[Line]:
        """The lines of all cells."""
        return [line for _, cells in self.rows for cell in cells for line in cell]


@dataclass(frozen=True)
class Paper:
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
    paper = Paper(numbers, theme, style, suffix, _comments(numbers, theme, cited))
    grids: dict[str, Grid | None] = {}
    for column in COLUMNS:
        wanted = column.key in WHAT and style.shows(column.key)
        if wanted and numbers.table[column.key].notna().any():
            # For the column ad_at, the file and label are named ad.
            name = "ad" if column.key == AT_EFFECT else column.key
            grids[name] = _attribute_table(paper, style.column_of(column))
    grids["means"] = _means_table(paper)
    grids["cost"] = _cost_table(paper)
    grids["ranking"] = _ranking_table(paper)
    found: dict[str, str] = {}
    # Below every table, since a document may contain only one of them.
    missed = [card.summary for card in missed_cards(numbers.results)]
    for name, grid in grids.items():
        if grid is None:
            continue
        # Other notes that concern all tables are only below the first, which has the main number.
        shared = [] if found else _notes_of_all(paper)
        found[name] = _float(paper, name, replace(grid, notes=[*missed, *shared, *grid.notes]))
    return found


def document(parts: Iterable[str], column: str = "") -> str:
    """A complete document, for pdfLaTeX, LuaLaTeX or Tectonic.

    Args:
        parts: LaTeX, such as fragments or commands that input them.
        column: 'one' for parts that fit one column of a paper.
    """
    gap = "\n" if column == "one" else "\n\\clearpage\n"
    return PREAMBLE + gap.join(parts) + "\n\\end{document}\n"


def input_of(name: str) -> str:
    r"""The \input command for a fragment in the same folder."""
    return rf"\input{{{name}}}"


def escape(text: object) -> str:
    """Escape text for LaTeX.

    Letters with one accent are kept. Other characters outside ASCII without an entry in SPECIAL
    become {[}U+4E2D{]}. Control characters and line breaks become spaces.
    """
    out = []
    # Names in records may come from anyone, and an unescaped command would be executed.
    for letter in str(text):
        if letter in SPECIAL:
            out.append(SPECIAL[letter])
        elif letter.isascii():
            out.append(letter if letter.isprintable() else " ")
        elif (
            # The end of Latin Extended-A. Of these letters, all engines can typeset ASCII
            # letters with an accent.
            ord(letter) < 0x180
            and unicodedata.normalize("NFD", letter)[0].isascii()
            and letter.isalpha()
        ):
            out.append(letter)
        else:
            out.append(f"{{[}}U+{ord(letter):04X}{{]}}")
    return "".join(out)


# -- the tables ------------------------------------------------------------------------------------


def _notes_of_all(paper: Paper) -> list[str]:
    """Notes about jobs that were not done, the meanings of marks, and caveats."""
    numbers = paper.numbers
    found = not_done(numbers.table, paper.theme)
    # A dictionary, so that a mark on many rows is explained once.
    meanings = dict(mark for record in numbers.means.to_dict("records") for mark in marks(record))
    found += [f"{name}: {meaning}" for name, meaning in meanings.items()]
    return [*found, *caveats(numbers.results, paper.theme)]


def _attribute_table(paper: Paper, column: Column) -> Grid:
    """Methods x attributes, and the mean: values, with their intervals below."""
    numbers = paper.numbers
    table = numbers.table
    attributes = list(dict.fromkeys(table["attribute"]))
    means = {row["method"]: row for row in numbers.means.to_dict("records")}
    records = {(row["method"], row["attribute"]): row for row in table.to_dict("records")}
    # Numbers without a comparison of their own are averaged over the attributes of accuracy.
    compared = numbers.compared.get(column.key, numbers.compared["accuracy"])
    # Each attribute has its own paired tests, so bold is decided per column. Of the means, only
    # that of accuracy has a test.
    bold = {a: _leaders(numbers, a, column) for a in attributes}
    bold_means = numbers.ranked.bold if column.key == "accuracy" else frozenset()
    rows = []
    for method in numbers.order:
        cells = []
        for attribute in attributes:
            record = records.get((method, attribute))
            cells.append(_cell(record, column, method in bold[attribute], paper.floors))
        if compared.values:
            cells.append(_cell(means.get(method), column, method in bold_means, paper.floors))
        rows.append((paper.name(means[method]), cells))
    heads = ["method", *map(paper.theme.attribute, attributes)]
    if compared.values:
        heads.append("mean")
    effects = ", ".join(f"{x:g}" for x in sorted(set(table["ad_at_effect"].dropna())))
    caption = [WHAT[column.key].format(effect=effects) + _over(table, column.interval) + "."]
    caption.append(_mean(paper, compared))
    return Grid(caption, heads, rows, _cell_notes(paper, column, compared))


def _cell_notes(paper: Paper, column: Column, compared: MeanComparison) -> list[str]:
    """The meanings of the cells' marks, and the methods without a mean."""
    table = paper.numbers.table
    notes = []
    noted = table[table["status"] == "done"]
    # The column `learned` has no notes.
    if f"{column.key}_note" in noted:
        noted = noted[noted[f"{column.key}_note"] != ""]
        for note, group in noted.groupby(f"{column.key}_note"):
            notes.append(f"†{note} ({where(group, paper.theme)})")
    weak = table[(table["status"] == "done") & (table["learned"] < LEAST_LEARNED)]
    if len(weak) and column.key in OF_LEARNED:
        notes.append(f"‡{NOT_LEARNED_MEANS} ({where(weak, paper.theme)})")
    # The caption has notes on all methods; these are on single methods.
    for method, why in compared.left(paper.theme).items():
        notes.append(f"no mean for {paper.theme.method(method)}: {why}")
    return notes


def _means_table(paper: Paper) -> Grid | None:
    """Methods x numbers, as means over attributes; None if there are no numbers."""
    numbers = paper.numbers
    means = numbers.means
    columns = [
        column
        for column in paper.style.columns_of(numbers)
        if column.key in means
        and means[column.key].notna().any()
        # By default without the costs, which have their own table.
        and (column.narrow or column.key in paper.style.columns)
    ]
    if not columns:
        return None
    records = means.to_dict("records")
    rows = []
    for row in records:
        bold = row["method"] in numbers.ranked.bold
        cells = []
        for column in columns:
            cells.append(_cell(row, column, bold and column.key == "accuracy", paper.floors))
        rows.append((paper.name(row), cells))
    intervals = any(column.interval for column in columns)
    caption = [f"Means over attributes{_over(numbers.table, intervals)}."]
    caption += [f"{_begun(column.title)}: {column.hint}." for column in columns if column.hint]
    over = {}
    for column in columns:
        # AD has its own attributes; all other numbers have those of accuracy.
        if column.key == AT_EFFECT:
            over[f"Mean {column.title}"] = numbers.compared[AT_EFFECT]
        else:
            over["Mean"] = numbers.compared["accuracy"]
    caption += [_mean(paper, compared, title) for title, compared in over.items()]
    notes = []
    weak = [paper.theme.method(row["method"]) for row in records if not_learned(row)]
    if weak and any(column.key in OF_LEARNED for column in columns):
        notes.append(f"‡{NOT_LEARNED_MEANS} ({', '.join(weak)})")
    heads = ["method", *(column.heading for column in columns)]
    return Grid(caption, heads, rows, notes)


def _cost_table(paper: Paper) -> Grid | None:
    costs = paper.numbers.costs.to_dict("records")
    shown = paper.style.costs_of(paper.numbers)
    if not shown:
        return None
    rows = []
    for row in costs:
        cells = [(Line(cell(row, column).text),) for column in shown]
        rows.append((paper.name(row), cells))
    known = [row for row in costs if row["accuracy_attributes"]]
    over = f" ({over_what(known[0], 'accuracy')})" if known else ""
    hints = "; ".join(f"{column.title}: {column.hint}" for column in shown)
    caption = [
        f"Costs: {SUMMED}{over}. {hints}. Measured once per run, on one machine; not tested."
    ]
    return Grid(caption, ["method", *(column.heading for column in shown)], rows)


def _ranking_table(paper: Paper) -> Grid | None:
    ranked = paper.numbers.ranked
    if not len(ranked.table):
        return None
    number = paper.style.column_of(COLUMNS[0])
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
        rows.append((f"{k}. {paper.theme.method(row['method'])}", cells))
    heads = ["method", "rank", "accuracy", "ties"]
    caption = [
        f"Methods by mean accuracy{_over(paper.numbers.table, number.interval)}.",
        _mean(paper, ranked.compared),
        "A rank is a range if the paired bootstrap over starts does not determine it (adjusted p "
        f"below {SIGNIFICANCE:g}, Holm). Ties: numbers of the methods from which a method does not "
        "differ significantly. Floors have no rank.",
    ]
    left = []
    for method, why in ranked.compared.left(paper.theme).items():
        left.append(f"not ranked: {paper.theme.method(method)}: {why}")
    return Grid(caption, heads, rows, left)


# -- parts of a caption ----------------------------------------------------------------------------
def _over(table: pd.DataFrame, intervals: bool) -> str:
    """'; over 150 starts per attribute and 1 to 3 seeds, with the 95 % interval below'."""
    counts = sorted(set(table["n"].dropna().astype(int)))
    seeds = sorted(set(table.loc[table["status"] == "done", "seeds"]))
    if not counts:
        return ""
    starts = _span(counts) + " starts"
    several = f" and {_span(seeds)} seeds" if seeds[-1] > 1 else ", one seed"
    interval = ", with the 95 % interval below" if intervals else ""
    return f"; over {starts} per attribute{several}{interval}"


def _span(values: Sequence[int]) -> str:
    ends = [f"{value:,}" for value in (values[0], values[-1])]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _mean(paper: Paper, compared: MeanComparison, title: str = "Mean") -> str:
    """What the means are over, or why there are none."""
    if not compared.values:
        return f"{_begun(compared.note(paper.theme))}."
    names = paper.theme.join_attributes(compared.attributes)
    return f"{title}: over {compared.over} ({names}), the same for every method."


def _begun(text: str) -> str:
    """Capitalise a text."""
    return f"{text[0].upper()}{text[1:]}"


def _ranges(places: Sequence[int]) -> str:
    """Shorten ascending numbers: '1–3, 7' for 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


# -- cells -----------------------------------------------------------------------------------------
def _leaders(numbers: Numbers, attribute: str, column: Column) -> set[str]:
    """The methods in bold."""
    records = numbers.table[numbers.table["attribute"] == attribute].to_dict("records")
    pairs = numbers.paired[
        (numbers.paired["attribute"] == attribute) & (numbers.paired["metric"] == column.key)
    ]
    return find_leaders(pairs, records, column.key, bool(column.better), numbers.floors)


def _cell(
    record: Mapping | None, column: Column, bold: bool, floors: Mapping[str, str]
) -> tuple[Line, ...]:
    """The value with its marks, and its interval below; floors: floor -> mark."""
    if record is None:
        return (Line(MISSING),)
    # Rows of means have no status; all their runs are done.
    if record.get("status", "done") != "done":
        return (Line(str(record["status"]), "emph"),)
    value = cell(record, column)
    below = "".join(floors[name] for name in value.floors)
    text = value.text + _marks_of(record, value, column) + below
    lines = [Line(text, "textbf" if bold else "")]
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


# -- LaTeX -----------------------------------------------------------------------------------------
def _float(paper: Paper, name: str, grid: Grid) -> str:
    """The fragment of a table.

    Args:
        paper: what all tables share.
        name: of the table.
        grid: its content.
    """
    style = paper.style
    sentences = [part for part in grid.caption if part]
    # Only marks that are in the table are explained.
    if any(line.form == "textbf" for line in grid.lines):
        sentences.append(BOLD)
    texts = "".join(line.text for line in grid.lines)
    marked = {name: mark for name, mark in paper.floors.items() if mark in texts}
    if marked:
        sentences.append(floor_legend(marked, paper.theme))
    made = escape(" ".join(sentences))
    label = style.labels.get(name, f"tab:{name}") + paper.suffix
    # A starred float spans both columns of a two-column paper.
    kind = "table" if style.column == "one" else "table*"
    comments = list(paper.comments)
    if name in style.captions:
        comments.append(f"Generated caption: {made}")
    lines = [
        *_commented(comments),
        rf"\begin{{{kind}}}[t]",
        r"\centering\footnotesize",
        rf"\setlength{{\tabcolsep}}{{{COLSEP:g}pt}}",
        # Allows wider spaces between words in narrow columns of text.
        r"\setlength{\emergencystretch}{3em}",
        rf"\caption{{{style.captions.get(name, made)}}}",
        rf"\label{{{label}}}",
        r"\par\smallskip",
        "\n\n\\medskip\n".join(f"{FIT[0]}{part}{FIT[1]}" for part in _tabulars(grid, style.column)),
    ]
    lines += map(note_below, grid.notes)
    return "\n".join([*lines, rf"\end{{{kind}}}"]) + "\n"


def note_below(text: str) -> str:
    """A sentence below a table, in smaller type."""
    small = rf"{{\scriptsize\raggedright {escape(text)}\par}}"
    return rf"\par\smallskip\parbox{{0.98\linewidth}}{small}"


def _tabulars(grid: Grid, column: str) -> list[str]:
    """Split a table into tabulars that fit the width of a line."""
    column = column or "two"
    names = [textwrap.wrap(name, NAME[column]) or [""] for name, _ in grid.rows]
    first = max(Line(line).points for lines in [[grid.heads[0]], *names] for line in lines)
    room = WIDTHS[column] * POINTS - first - 2 * COLSEP
    widths = []
    for k, head in enumerate(grid.heads[1:]):
        own = [line.points for _, cells in grid.rows for line in cells[k]]
        widths.append(max([Line(head).points, *own]) + 2 * COLSEP)
    parts = _packed(widths, SLACK * room)
    # The parts are made equally wide as far as possible without needing more of them.
    for share in (0.9, 0.8, 0.7, 0.6):
        even = _packed(widths, share * SLACK * room)
        if len(even) == len(parts):
            parts = even
    return [_tabular(grid, names, part) for part in parts]


def _packed(widths: Sequence[float], room: float) -> list[list[int]]:
    """Positions of the columns of each part; a part has the columns that fit, at least one."""
    parts: list[list[int]] = [[]]
    for k, width in enumerate(widths):
        if parts[-1] and sum(widths[i] for i in parts[-1]) + width > room:
            parts.append([])
        parts[-1].append(k)
    return parts


def _tabular(grid: Grid, names: Sequence[Sequence[str]], places: Sequence[int]) -> str:
    """A tabular with the names and some of the columns."""
    heads = [grid.heads[0], *(grid.heads[k + 1] for k in places)]
    lines = [r"\toprule", _row(map(escape, heads)), r"\midrule"]
    for k, (name, (_, cells)) in enumerate(zip(names, grid.rows)):
        if k:
            lines.append(r"\addlinespace[1.5pt]")
        # The second line of a name is next to the intervals.
        columns = [[escape(line) for line in name]]
        for place in places:
            columns.append([line.latex for line in cells[place]])
        lines += map(_row, zip_longest(*columns, fillvalue=""))
    body = "\n".join([*lines, r"\bottomrule"])
    return f"\\begin{{tabular}}{{l{'c' * len(places)}}}\n{body}\n\\end{{tabular}}"


def _row(texts: Iterable[str]) -> str:
    return " & ".join(texts) + r" \\"


def _comments(numbers: Numbers, theme: Theme, cited: Cited | None) -> list[str]:
    """Lines that say what was run, and the papers."""
    results = numbers.results
    records = sum(len(run_ids) for run_ids in results.runs["run_ids"])
    lines = [f"Made by editbench {metadata.version('editbench')} from {records} records."]
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


def _commented(lines: Iterable[str]) -> list[str]:
    """Convert lines of text to LaTeX comments."""
    found = []
    for line in lines:
        # A line break in a record's text would end the comment.
        found += textwrap.wrap(" ".join(line.split()), 97, break_on_hyphens=False)
    return [f"% {line}" for line in found]
