"""Tables for a paper: booktabs, no other package, every character of a record escaped."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
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
)
from editbench.report.costs import COSTS, SUMMED, cost_table
from editbench.report.html import facts
from editbench.report.load import Results
from editbench.report.paired import LEVEL, leaders
from editbench.report.ranking import Ranking
from editbench.report.ranking import lines as ranking_lines
from editbench.report.tables import AT_EFFECT, main_table, summary
from editbench.report.write import NAMED, NOT_LEARNED_MEANS, not_done

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
BOLD = (
    "Bold: the best of a column and whatever the paired bootstrap does not separate from it "
    f"(Holm, adjusted p below {LEVEL:g}); none where there are no paired data."
)


def tables(
    results: Results, differences: pd.DataFrame, ranked: Ranking, suffix: str = ""
) -> dict[str, str]:
    """Name -> LaTeX of one setting's tables: accuracy, ad, cost and ranking, those that have
    numbers.

    suffix: told apart by it, the labels of several settings can stand in one document.
    """
    table = main_table(results)
    about = _about(results, table)
    found = {}
    columns = {column.key: column for column in COLUMNS}
    if table["accuracy"].notna().any():
        means = {row["method"]: row for row in ranked.table.to_dict("records")}
        first = next(iter(means.values()), None)
        # The first row is the best; those that it is not separated from share its bold.
        tied = {first["method"], *first["tied_with"].split(", ")} if first else set()
        caption = (
            "Accuracy: share of starts whose target was reached with every other attribute kept, "
            "at the first crossing, with its 95 % interval."
            + (
                f" Mean: over {len(ranked.attributes)} attributes and the starts that all ranked "
                "methods share."
                if means
                else ""
            )
        )
        # Only this table lists what was not done: said once, beside the main number.
        found["accuracy"] = _wide(
            table, columns["accuracy"], differences, caption, about, means, tied, not_done(table)
        )
    if table[AT_EFFECT].notna().any():
        # Settings with other curves may be read at another effect, so the caption tells it.
        effects = ", ".join(f"{x:g}" for x in sorted(set(table["ad_at_effect"].dropna())))
        mean = summary(table)
        means = (
            {row["method"]: row for row in mean.to_dict("records")}
            if mean[AT_EFFECT].notna().any()
            else {}
        )
        caption = (
            "Attribute dependency (AD): mean change of the other attributes, in σ, at an achieved "
            f"effect of {effects} σ on the target, with its 95 % interval; lower is better."
            + (
                " Mean: over the attributes on which it is readable for every method but the floor."
                if means
                else ""
            )
        )
        # The means of AD have no paired test over attributes, so none of them is bold.
        found["ad"] = _wide(
            table, columns[AT_EFFECT], differences, caption, about, means, set(), []
        )
    if table["learned"].notna().any():
        caption = (
            "Learned: AUC with which what a method learnt orders the teacher's labels on the tune "
            "split, of many classes the mean of each against the rest; 0.5 is chance. Mean: over "
            "the attributes served."
        )
        means = {row["method"]: row for row in summary(table).to_dict("records")}
        found["learned"] = _wide(
            table, columns["learned"], differences, caption, about, means, set(), []
        )
    costs = cost_table(table)
    shown = [column for column in COSTS if costs[column.key].notna().any()]
    if shown:
        rows = [
            [
                _name(row),
                f"{row['served']} of {row['asked']}",
                *(cell(row, column).text for column in shown),
            ]
            for row in costs.to_dict("records")
        ]
        caption = (
            f"Costs: {SUMMED}. Measured once a run, on the hardware of the provenance; no test."
        )
        body = _tabular(
            ["method", "attributes", *(column.title for column in shown)], _escaped(rows)
        )
        found["cost"] = _float("cost", caption, about, [body])
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
    return (
        {
            name: text.replace(f"\\label{{tab:{name}}}", f"\\label{{tab:{name}{suffix}}}")
            for name, text in found.items()
        }
        if suffix
        else found
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
    table: pd.DataFrame,
    column: Column,
    differences: pd.DataFrame,
    caption: str,
    about: str,
    means: dict[str, dict],
    tied: set[str],
    notes: list[str],
) -> str:
    """Methods x attributes, two lines a method: the value, its interval. means: method -> record of
    the last column, {} for none; tied: those of it in bold."""
    # The same order of methods as in every other table of the report.
    methods = list(summary(table)["method"])
    records = {(row["method"], row["attribute"]): row for row in table.to_dict("records")}
    names = {row["method"]: _name(row) for row in table.to_dict("records")}
    attributes = sorted(set(table["attribute"]))
    # Each attribute has its own paired test, so each column has its own bold.
    bold = {a: _leaders(records, methods, a, column, differences) for a in attributes}
    bodies = []
    # More attributes than fit are stacked in one float, so that caption and label stay one.
    for begin in range(0, len(attributes), ACROSS):
        part = attributes[begin : begin + ACROSS]
        # The mean over all attributes stands once, at the end of the last part.
        last = bool(means) and begin + ACROSS >= len(attributes)
        rows = []
        for method in methods:
            upper, lower = [escape(names[method])], [""]
            for attribute in part:
                value, interval = _cell(records.get((method, attribute)), column)
                upper.append(rf"\textbf{{{value}}}" if method in bold[attribute] else value)
                lower.append(interval)
            if last:
                value, interval = _cell(means.get(method), column)
                upper.append(rf"\textbf{{{value}}}" if method in tied else value)
                lower.append(interval)
            # No second line where no cell has an interval: an empty one would look like a gap.
            rows += [upper, lower] if any(lower) else [upper]
        bodies.append(
            _tabular(
                ["method", *(a.replace("_", " ") for a in part), *(["mean"] if last else [])], rows
            )
        )
    noted = table[table["status"] == "done"]
    # What was learnt has no notes of its own.
    if f"{column.key}_note" in noted:
        noted = noted[noted[f"{column.key}_note"] != ""]
        for note, group in noted.groupby(f"{column.key}_note"):
            notes = [*notes, f"†{note} ({_where(group)})"]
    weak = table[(table["status"] == "done") & (table["learned"] < LEAST_LEARNED)]
    if len(weak):
        notes = [*notes, f"‡{NOT_LEARNED_MEANS} ({_where(weak)})"]
    # The column is called ad_at, the file and the label of the table ad.
    kind = "ad" if column.key == AT_EFFECT else column.key
    return _float(kind, f"{caption} {BOLD}", about, bodies, notes)


def _where(group: pd.DataFrame) -> str:
    """'method/attribute, ...' of the first rows, and how many more there are."""
    where = [f"{method}/{name}" for method, name in zip(group["method"], group["attribute"])]
    more = f" and {len(where) - NAMED} more" if len(where) > NAMED else ""
    return ", ".join(where[:NAMED]) + more


def _leaders(
    records: dict, methods: list[str], attribute: str, column: Column, differences: pd.DataFrame
) -> set[str]:
    """The methods in bold; a value with a note is no candidate."""
    values = {}
    for method in methods:
        row = records.get((method, attribute))
        if row and row["status"] == "done" and not row.get(f"{column.key}_note"):
            values[method] = row[column.key]
    rows = differences[
        (differences["attribute"] == attribute) & (differences["metric"] == column.key)
    ]
    return leaders(rows, values, bool(column.better))


def _cell(record: dict | None, column: Column) -> tuple[str, str]:
    """(value, interval) as LaTeX."""
    if record is None:
        return escape(MISSING), ""
    # The rows of means have no status: they are of runs that were done.
    if record.get("status", "done") != "done":
        return rf"\emph{{{escape(record['status'])}}}", ""
    value = cell(record, column)
    # Smaller type keeps the column narrow and the value in front.
    interval = rf"{{\scriptsize {escape(value.interval)}}}" if value.interval else ""
    marks_of = ("†" if value.mark else "") + ("‡" if not_learned(record) else "")
    return escape(value.text + marks_of), interval


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
        "Seeds": "Seed",
    }
    told = [f"{wanted[term]}: {text}." for term, text in facts(results, table) if term in wanted]
    setting = str(table["setting"].iloc[0])
    return " ".join(told + ([f"Setting: {setting}."] if setting else []))
