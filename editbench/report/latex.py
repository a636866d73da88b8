"""Tables for a paper: booktabs, no other package, every character of a record escaped."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import replace

import pandas as pd

from editbench.report.cells import (
    COLUMNS,
    LEAST_LEARNED,
    MISSING,
    Column,
    cell,
    marks,
    not_learned,
    over_what,
)
from editbench.report.costs import COSTS, SUMMED
from editbench.report.html import facts
from editbench.report.load import Results
from editbench.report.means import Comparison
from editbench.report.numbers import Numbers
from editbench.report.paired import leaders
from editbench.report.ranking import lines as ranking_lines
from editbench.report.tables import AT_EFFECT
from editbench.report.write import BOLD, FLOOR_RULE, NAMED, NOT_LEARNED_MEANS, not_done

ACROSS = 8  # attributes side by side; more go into a second tabular below
# Beside what LaTeX itself reads, the signs of these tables: pdfLaTeX stops at their Unicode.
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
    "σ": r"$\sigma$",
    "ρ": r"$\rho$",
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
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "\u00a0": "~",
}
# No fontenc and no inputenc: LuaLaTeX and Tectonic need neither, pdfLaTeX has read UTF-8 by
# default since 2018.
PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[a4paper,landscape,margin=18mm]{geometry}
\usepackage{booktabs}
\begin{document}
"""


def tables(numbers: Numbers, suffix: str = "") -> dict[str, str]:
    """LaTeX of one setting's tables: accuracy, ad, cost and ranking, those that have numbers.

    Args:
        numbers: of the setting.
        suffix: told apart by it, the labels of several settings can stand in one document.

    Returns:
        Name of the table -> its text.
    """
    table = numbers.table
    about = _about(numbers.results, table)
    columns = {column.key: column for column in COLUMNS}
    found = {}
    if table["accuracy"].notna().any():
        caption = (
            "Accuracy: share of starts whose target was reached with every other attribute kept, "
            f"at the first crossing, with its 95 % interval. {_mean(numbers.compared['accuracy'])}"
        )
        # Only this table lists what was not done: said once, beside the main number.
        found["accuracy"] = _wide(
            numbers, columns["accuracy"], caption, about, numbers.ranked.bold, not_done(table)
        )
    if table[AT_EFFECT].notna().any():
        # Settings with other curves may be read at another effect, so the caption tells it.
        effects = ", ".join(f"{x:g}" for x in sorted(set(table["ad_at_effect"].dropna())))
        caption = (
            "Attribute dependency (AD): mean change of the other attributes, in σ, at an achieved "
            f"effect of {effects} σ on the target, over the starts that reach it, with its 95 % "
            f"interval; lower is better. {_mean(numbers.compared[AT_EFFECT])}"
        )
        # The means of AD have no paired test over attributes, so none of them is bold.
        found["ad"] = _wide(numbers, columns[AT_EFFECT], caption, about, frozenset(), [])
    if table["learned"].notna().any():
        caption = (
            "Learned: AUC with which what a method learnt orders the teacher's labels on the tune "
            "split, of many classes the mean of each against the rest; 0.5 is chance. "
            f"{_mean(numbers.compared['accuracy'])}"
        )
        found["learned"] = _wide(numbers, columns["learned"], caption, about, frozenset(), [])
    costs = numbers.costs
    shown = [column for column in COSTS if costs[column.key].notna().any()]
    if shown:
        rows = [
            [
                _name(row),
                over_what(row, "accuracy"),
                *(cell(row, column).text for column in shown),
            ]
            for row in costs.to_dict("records")
        ]
        caption = (
            f"Costs: {SUMMED}. Measured once a run, on the hardware of the provenance; no test."
        )
        body = _tabular(["method", "over", *(column.title for column in shown)], _escaped(rows))
        found["cost"] = _float("cost", caption, about, [body])
    ranked = numbers.ranked
    if len(ranked.table):
        number = columns["accuracy"]
        rows = [
            [
                row["rank"],
                row["method"],
                f"{cell(row, number).text} ({cell(row, number).interval})",
                row["tied_with"] or MISSING,
            ]
            # The range of ranks and the names of ties are text, so all cells are escaped together.
            for row in ranked.table.to_dict("records")
        ]
        body = _tabular(
            ["rank", "method", "mean accuracy", "not separated from"],
            _escaped(rows),
            # Many ties make a long line: the last column has a width and wraps.
            r"cllp{0.5\textwidth}",
        )
        found["ranking"] = _float(
            "ranking", ranking_lines(ranked)[0] + ".", about, [body], ranking_lines(ranked)[1:]
        )
    if not suffix:
        return found
    return {
        name: text.replace(f"\\label{{tab:{name}}}", f"\\label{{tab:{name}{suffix}}}")
        for name, text in found.items()
    }


def _mean(compared: Comparison) -> str:
    """What the column of means is over, or why there is none."""
    if compared.note:
        return f"No mean: {compared.note}."
    return (
        f"Mean: over {compared.over} ({', '.join(compared.attributes)}), the same for every method."
    )


def document(parts: Iterable[str]) -> str:
    """A file that compiles on its own with pdfLaTeX, LuaLaTeX or Tectonic."""
    return PREAMBLE + "\n\\clearpage\n".join(parts) + "\n\\end{document}\n"


def escape(text: object) -> str:
    """Any text as LaTeX that prints it. Letters with one accent stay; other characters outside
    ASCII that have no entry in SPECIAL become {[}U+4E2D{]}; control characters and line breaks
    become spaces.
    """
    out = []
    # Names come from records of anybody: a stray brace or command would break or run in the paper.
    for letter in str(text):
        if letter in SPECIAL:
            out.append(SPECIAL[letter])
        elif letter.isascii():
            out.append(letter if letter.isprintable() else " ")
        elif (
            # Latin Extended-A ends here; of it, an accent over an ASCII letter is what
            # every engine can set.
            ord(letter) < 0x180
            and unicodedata.normalize("NFD", letter)[0].isascii()
            and letter.isalpha()
        ):
            out.append(letter)
        else:
            out.append(f"{{[}}U+{ord(letter):04X}{{]}}")
    return "".join(out)


def _wide(
    numbers: Numbers,
    column: Column,
    caption: str,
    about: str,
    bold_means: Collection[str],
    notes: list[str],
) -> str:
    """Methods x attributes, up to three lines a method: the value, its interval, the floor.

    Args:
        numbers: of the setting.
        column: the number.
        caption: what it is.
        about: what was run.
        bold_means: methods whose mean is bold.
        notes: lines below the table.
    """
    table = numbers.table
    # The same order of methods as in every other table of the report.
    methods = numbers.order
    means = {row["method"]: row for row in numbers.means.to_dict("records")}
    records = {(row["method"], row["attribute"]): row for row in table.to_dict("records")}
    names = {row["method"]: _name(row) for row in table.to_dict("records")}
    attributes = sorted(set(table["attribute"]))
    # What has no set of its own is averaged over that of accuracy.
    compared = numbers.compared.get(column.key, numbers.compared["accuracy"])
    # Each attribute has its own paired test, so each column has its own bold.
    bold = {a: _leaders(numbers, records, a, column) for a in attributes}
    bodies = []
    # More attributes than fit are stacked in one float, so that caption and label stay one.
    for begin in range(0, len(attributes), ACROSS):
        part = attributes[begin : begin + ACROSS]
        # The mean over all attributes stands once, at the end of the last part.
        last = begin + ACROSS >= len(attributes) and bool(compared.values)
        rows = []
        for method in methods:
            cells = [_cell(records.get((method, a)), column, method in bold[a]) for a in part]
            if last:
                cells.append(_cell(means.get(method), column, method in bold_means))
            upper, lower, floor = zip(*cells)
            rows.append([escape(names[method]), *upper])
            # No further line where no cell has one: an empty one would look like a gap.
            rows += [["", *line] for line in (lower, floor) if any(line)]
        heads = ["method", *(a.replace("_", " ") for a in part), *(["mean"] if last else [])]
        bodies.append(_tabular(heads, rows))
    noted = table[table["status"] == "done"]
    # What was learnt has no notes of its own.
    if f"{column.key}_note" in noted:
        noted = noted[noted[f"{column.key}_note"] != ""]
        for note, group in noted.groupby(f"{column.key}_note"):
            notes = [*notes, f"†{note} ({_where(group)})"]
    weak = table[(table["status"] == "done") & (table["learned"] < LEAST_LEARNED)]
    if len(weak):
        notes = [*notes, f"‡{NOT_LEARNED_MEANS} ({_where(weak)})"]
    # A note for all methods is the caption's; these are of single ones.
    notes = [*notes, *(f"no mean of {method}: {why}" for method, why in compared.left.items())]
    # The column is called ad_at, the file and the label of the table ad.
    kind = "ad" if column.key == AT_EFFECT else column.key
    return _float(kind, f"{caption} {BOLD} {FLOOR_RULE}", about, bodies, notes)


def _where(group: pd.DataFrame) -> str:
    """'method/attribute, ...' of the first rows, and how many more there are."""
    where = [f"{method}/{name}" for method, name in zip(group["method"], group["attribute"])]
    more = f" and {len(where) - NAMED} more" if len(where) > NAMED else ""
    return ", ".join(where[:NAMED]) + more


def _leaders(numbers: Numbers, records: dict, attribute: str, column: Column) -> set[str]:
    """The methods in bold; a value with a note is no candidate."""
    values = {}
    for method in numbers.order:
        row = records.get((method, attribute))
        if row and row["status"] == "done" and not row.get(f"{column.key}_note"):
            values[method] = row[column.key]
    rows = numbers.paired[
        (numbers.paired["attribute"] == attribute) & (numbers.paired["metric"] == column.key)
    ]
    return leaders(rows, values, bool(column.better), numbers.floors)


def _cell(record: dict | None, column: Column, bold: bool) -> tuple[str, str, str]:
    """(value, interval, mark of the floor) as LaTeX."""
    if record is None:
        return escape(MISSING), "", ""
    # The rows of means have no status: they are of runs that were done.
    if record.get("status", "done") != "done":
        return rf"\emph{{{escape(record['status'])}}}", "", ""
    value = cell(record, column)
    text = escape(value.text)
    # Why a mean is missing stands below the table; a cell's note is found there by its dagger.
    if value.mark and "status" in record:
        text += escape("†")
    if not_learned(record):
        text += escape("‡")
    if bold:
        text = rf"\textbf{{{text}}}"
    # Smaller type keeps the column narrow and the value in front.
    small = [
        rf"{{\scriptsize {escape(line)}}}" if line else "" for line in (value.interval, value.floor)
    ]
    return text, small[0], small[1]


def _escaped(rows: list[list[str]]) -> list[list[str]]:
    return [[escape(text) for text in row] for row in rows]


def _tabular(heads: list[str], rows: list[list[str]], shape: str = "") -> str:
    """rows are LaTeX already; the first column is text, the others are numbers."""
    lines = [" & ".join(map(escape, heads)), r"\midrule", *(" & ".join(row) for row in rows)]
    # A rule is no row: a line break after it would add an empty one.
    body = "\n".join(line if line.startswith("\\midrule") else f"{line} \\\\" for line in lines)
    shape = shape or "l" + "c" * (len(heads) - 1)
    return f"\\begin{{tabular}}{{{shape}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}"


def _float(
    name: str, caption: str, about: str, bodies: list[str], notes: Iterable[str] = ()
) -> str:
    lines = [
        # A starred float spans both columns where the paper has two.
        r"\begin{table*}[t]",
        r"\centering\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape(f'{caption} {about}')}}}",
        rf"\label{{tab:{name}}}",
        "\n\n\\medskip\n".join(bodies),
    ]
    lines += [
        rf"\par\smallskip\parbox{{0.96\linewidth}}{{\scriptsize {escape(note)}}}" for note in notes
    ]
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


def _name(record: dict) -> str:
    return record["method"] + "".join(f" [{mark}]" for mark, _ in marks(record))


def _about(results: Results, table: pd.DataFrame) -> str:
    """'n: 73–90 an attribute. Judge: ... Bank: ...' and the setting where there are several."""
    mine = set(results.runs["run_id"])
    # `only` leaves the provenance of all settings in place, and the facts must be of this one.
    results = replace(
        results, provenance={run: made for run, made in results.provenance.items() if run in mine}
    )
    wanted = {
        "Starts": "n",
        "Judge": "Judge",
        "Bank": "Bank",
        "Generator": "Generator",
        "Card": "Card of its world",
        "Seeds": "Seed",
    }
    told = [f"{wanted[term]}: {text}." for term, text in facts(results, table) if term in wanted]
    setting = str(table["setting"].iloc[0])
    return " ".join(told + ([f"Setting: {setting}."] if setting else []))
