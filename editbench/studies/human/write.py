"""The analysis of a study on the terminal and as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from editbench.base.errors import BadFile
from editbench.base.files import read_json, write_atomic
from editbench.base.text import printable
from editbench.report import typeset
from editbench.report.cells import MISSING, markdown_safe
from editbench.studies.human import ASKED
from editbench.studies.human.agreement import agreement, consistency
from editbench.studies.human.preferences import preferences
from editbench.studies.human.responses import Responses

Shown = tuple[str, list[str], list[list[str]]]  # title, headings, rows
# Files of raters can contain any text, and the tables may be opened in spreadsheets.
FORMULA = ("=", "+", "-", "@")  # how a cell begins that a spreadsheet would run


@dataclass(frozen=True)
class Analysis:
    """All tables of a study, notes on what they stand on."""

    responses: Responses
    tables: dict[str, pd.DataFrame]
    notes: list[str]
    asked: tuple[str, ...]


def analyse(responses: Responses, study: Path, seed: int = 0) -> Analysis:
    """Every table of a study, from its checked responses.

    Args:
        responses: of all raters.
        study: folder of the study, with its manifest.
        seed: of the bootstrap.
    """
    # The seed is that of the analysis: it draws the bootstrap and no part of the study.
    rates, strengths = preferences(responses.votes, seed)
    files = pd.DataFrame(
        [
            {
                "file": printable(sheet.path.name),
                "rater": sheet.rater,
                "page": sheet.page,
                "answers": sheet.given,
                "missing": sheet.missing,
                "unknown_questions": sheet.unknown,
                # Counted a file, so that the organiser sees which page or browser went wrong.
                "no_answer": sheet.invalid,
                "note": sheet.note,
            }
            for sheet in responses.sheets
        ]
    )
    tables = {
        "win_rates": rates,
        "strengths": strengths,
        "consistency": consistency(responses.votes),
        "agreement": agreement(responses.votes),
        "files": files,
    }
    notes = [
        # With the tables, since a rate without its rules is easily misread.
        "rate: share of votes for the first method, without ties, with Wilson's 95 % interval and a "
        "bootstrap interval that resamples raters and comparisons",
        "p: exact binomial test against 1/2, adjusted over the rows of a question (Holm); rows of "
        "'all' are adjusted separately",
        "Wilson's interval and p assume independent votes. If raters saw the same images, votes are "
        "not independent: use the bootstrap interval",
        *_unseen(study),
        *(
            printable(f"not counted: {name}: {reason}")
            for name, reason in responses.left_out + responses.superseded
        ),
    ]
    # In the order of the paper's questions; one that nobody answered has no table.
    asked = tuple(name for name in ASKED if name in set(responses.votes["asked"]))
    return Analysis(responses, tables, notes, asked)


def shown(found: Analysis) -> list[Shown]:
    """The tables that have rows, as text; the last is that of the files."""
    tables = []
    for asked in found.asked:
        tables += [_rates(found, asked), _strengths(found, asked)]
    tables += [_raters(found), _agreement(found), _files(found)]
    return [table for table in tables if table[2]]


def _rates(found: Analysis, asked: str) -> Shown:
    headings = [
        *("attribute", "methods", "rate", "Wilson", "bootstrap"),
        *("wins", "ties", "raters", "p (Holm)"),
    ]
    rows = []
    for row in found.tables["win_rates"].query("asked == @asked").to_dict("records"):
        rows.append(
            [
                row["attribute"],
                # The rate is of the first of the two.
                f"{row['a']} : {row['b']}",
                _number(row["rate_a"]),
                _interval(row["low"], row["high"]),
                _interval(row["boot_low"], row["boot_high"]),
                f"{row['wins_a']} : {row['wins_b']}",
                # Told here, since the rate leaves them out.
                f"{row['ties']} ({100 * row['tie_share']:.0f} %)",
                str(row["raters"]),
                _p(row["p_holm"]),
            ]
        )
    return ASKED[asked], headings, rows


def _strengths(found: Analysis, asked: str) -> Shown:
    """It has rows where more than two methods took part."""
    headings = ["attribute", "method", "strength", "bootstrap", "wins", "losses", "note"]
    rows = []
    for row in found.tables["strengths"].query("asked == @asked").to_dict("records"):
        rows.append(
            [
                row["attribute"],
                row["method"],
                _number(row["strength"], 2),
                _interval(row["low"], row["high"], 2),
                str(row["wins"]),
                str(row["losses"]),
                row["note"],
            ]
        )
    return f"{ASKED[asked]}: Bradley-Terry strengths, log-odds", headings, rows


def _raters(found: Analysis) -> Shown:
    headings = ["question", "rater", "alike", "Wilson", "left", "p of left", "ties", "s per screen"]
    rows = []
    for row in found.tables["consistency"].to_dict("records"):
        rows.append(
            [
                row["asked"],
                row["rater"],
                f"{row['alike']} of {row['repeats']}",
                _interval(row["low"], row["high"]),
                _number(row["left_share"]),
                _p(row["left_p"]),
                _number(row["tie_share"]),
                _number(row["seconds"], 1),
            ]
        )
    return "Raters: consistency on repeats, and preferred side", headings, rows


def _agreement(found: Analysis) -> Shown:
    headings = [
        *("question", "attribute", "raters", "comparisons", "same answer"),
        "Krippendorff's alpha",
    ]
    rows = []
    # Without a comparison that two raters answered there is no agreement to tell.
    for row in found.tables["agreement"].query("comparisons > 0").to_dict("records"):
        rows.append(
            [
                row["asked"],
                row["attribute"],
                str(row["raters"]),
                str(row["comparisons"]),
                _number(row["percent"]),
                _number(row["alpha"]),
            ]
        )
    return "Agreement between raters", headings, rows


def _files(found: Analysis) -> Shown:
    headings = ["file", "rater", "page", "answers", "missing", "unknown", "invalid", "note"]
    rows = found.tables["files"].astype(str).to_numpy().tolist()
    return "Files", headings, rows


def print_analysis(found: Analysis, console: Console) -> None:
    """Print every table that has rows, then the notes.

    Args:
        found: the tables.
        console: of the terminal.
    """
    for title, headings, rows in shown(found):
        out = Table(
            title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False
        )
        for k, heading in enumerate(headings):
            out.add_column(
                heading, justify="left" if k < 2 or heading == "note" else "right", overflow="fold"
            )
        for row in rows:
            # Square brackets in a rater's text must not be read as markup.
            out.add_row(*map(escape, row))
        console.print(out)
        console.print()
    for note in found.notes:
        console.print(escape(note), style="dim", soft_wrap=True)


def write_analysis(found: Analysis, folder: Path) -> None:
    """Write the tables of a study.

    NAME.csv for every table with full precision, votes.csv with a row an answer, report.md and
    tables.tex.

    Args:
        found: the tables.
        folder: of the files; those of an earlier analysis are replaced.
    """
    for name, table in (found.tables | {"votes": found.responses.votes}).items():
        # With a quote, which only the CSV has, a spreadsheet reads the cell as text.
        safe = table.map(
            lambda value: (
                f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
            )
        )
        write_atomic(folder / f"{name}.csv", safe.to_csv(index=False, lineterminator="\n"))
    parts = [
        "# Human evaluation",
        *(f"## {title}\n\n{_pipes(headings, rows)}" for title, headings, rows in shown(found)),
        "\n".join(f"- {markdown_safe(note)}" for note in found.notes),
    ]
    write_atomic(folder / "report.md", "\n\n".join(parts) + "\n")
    write_atomic(
        folder / "tables.tex",
        # All but the last table: the list of files is for the organiser and not for a paper.
        typeset.document(_float(*one, k) for k, one in enumerate(shown(found)[:-1])),
    )


def _unseen(study: Path) -> list[str]:
    """The share of starts that never crossed, which no win rate is about."""
    try:
        rows = read_json(study / "manifest.json")["coverage"]
        return [
            f"{row['method']} on {row['attribute']}: {row['starts'] - row['crossed']} of "
            f"{row['starts']} starts never reached the target and were not shown"
            for row in rows
        ]
    # A manifest that is lost costs this note and not the analysis.
    except (BadFile, KeyError, TypeError):
        return [
            "manifest.json is not readable, so it is unknown how many starts never reached the target"
        ]


def _float(title: str, headings: list[str], rows: list[list[str]], number: int) -> str:
    lines = [" & ".join(map(typeset.escape, row)) + r" \\" for row in [headings, *rows]]
    # Notes are sentences and must wrap; the others are numbers.
    shape = "".join(r"p{0.3\textwidth}" if heading == "note" else "r" for heading in headings[2:])
    return (
        "\n".join(
            [
                r"\begin{table*}[t]",
                r"\centering\footnotesize",
                rf"\caption{{{typeset.escape(title)}.}}",
                rf"\label{{tab:human-{number}}}",
                rf"\begin{{tabular}}{{ll{shape}}}",
                r"\toprule",
                lines[0],
                r"\midrule",
                *lines[1:],
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table*}",
            ]
        )
        + "\n"
    )


def _pipes(headings: list[str], rows: list[list[str]]) -> str:
    # Two columns of text at the left, then numbers.
    rule = ["---", "---", *["---:"] * (len(headings) - 2)]
    return "\n".join(
        "| " + " | ".join(map(markdown_safe, row)) + " |" for row in [headings, rule, *rows]
    )


def _number(value: float, digits: int = 3) -> str:
    # A typographic minus, as wide as a digit.
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else MISSING


def _interval(low: float, high: float, digits: int = 3) -> str:
    return (
        f"{_number(low, digits)} – {_number(high, digits)}"
        if math.isfinite(low) and math.isfinite(high)
        else ""
    )


def _p(value: float) -> str:
    # Never 0.000, which no test can show.
    return MISSING if not math.isfinite(value) else "<0.001" if value < 0.001 else f"{value:.3f}"
