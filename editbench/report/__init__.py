"""Reports: tables, figures and a self-contained page, made only from a folder of records."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from editbench.base.files import write_atomic
from editbench.report import dial, figure_dial, matched, references, typeset
from editbench.report.costs import COSTS
from editbench.report.files import ReportFiles
from editbench.report.html import page
from editbench.report.load import Results, load, require_readable
from editbench.report.numbers import Numbers, numbers_of
from editbench.report.problem import Problem
from editbench.report.references import cited_in
from editbench.report.style import Style
from editbench.report.text_tables import csv, markdown, print_table

__all__ = ["Results", "Style", "every_setting", "load", "print_table", "report", "write_report"]

COST_COLUMNS = (
    "setting",
    "method",
    "floor",
    "accuracy_attributes",
    "asked",
    "accuracy_starts",
    "accuracy",
    *(column.key for column in COSTS),
    "on_front",
)


def report(
    root: Path,
    out: Path | None = None,
    only: Collection[str] | None = None,
    by_seed: bool = False,
    files: bool = True,
    style: Style | None = None,
) -> Path:
    """Read the records with `load` and write the report with `write_report`.

    Args:
        root: folder of the records.
        out: folder of the report; None for ROOT/report.
        only: run ids to report; None for all records of the folder.
        by_seed: whether each seed is a separate setting; otherwise seeds share one cell of a table.
        files: whether to write the figures as files too.
        style: choices for the report; None reads ROOT/report.yaml if it exists.

    Returns:
        The path of the page.

    Raises:
        EditbenchError: `root` is missing or has no run, or `out` cannot be written.
    """
    style = style or Style.of_runs(Path(root))
    results = style.choose(load(Path(root), only, by_seed).with_failures())
    return write_report(results, every_setting(results, style), out, files, style)


def every_setting(results: Results, style: Style | None = None) -> list[Numbers]:
    """The numbers of each setting, for the terminal and the page.

    Args:
        results: the records.
        style: determines the order.
    """
    style = style or Style()
    theme = style.theme(results)
    return [style.ordered(numbers_of(name, part), theme) for name, part in results.by_setting()]


def write_report(
    results: Results,
    every: list[Numbers],
    out: Path | None = None,
    files: bool = True,
    style: Style | None = None,
) -> Path:
    """Write the files of a report.

    They are index.html, table.csv, table.md, means.csv, ranking.csv, paired.csv, costs.csv,
    matched.csv, matched_paired.csv, references.bib and latex/. The tables are written first. A
    figure that fails is listed on the page, and the rest of the report is still written.

    Args:
        results: the records.
        every: their numbers, see `every_setting`.
        out: folder of the report; None for `report` in the folder of the records.
        files: whether to write figures/ too: every figure as SVG, PNG and PDF, and the strips. The
            page embeds its figures.
        style: choices for the report.

    Returns:
        The path of the page.

    Raises:
        EditbenchError: no run is readable, or `out` cannot be written.
    """
    # A page without runs would hide that every folder is damaged.
    require_readable(results)
    out = results.root / "report" if out is None else Path(out)
    style = style or Style()
    # For all settings together, so that a method has the same colour in all sections of the page.
    theme = style.theme(results)
    # The tables are written before anything is drawn, so that they exist even if drawing fails.
    write_atomic(out / "table.csv", csv(results))
    write_atomic(out / "table.md", markdown(results, every, style, theme))
    cited = cited_in(results, style.folders)
    write_atomic(out / references.FILE, cited.bibtex)
    written = ReportFiles(out, theme, style, files, results.problems)
    if cited.problem:
        written.problems.append(Problem(references.FILE, cited.problem))
    sections = [written.write_section(numbers, cited) for numbers in every]
    # A dial compares worlds, and each world is a setting, so its figure is not part of a section.
    across = written.draw(figure_dial.drawings(results, theme))
    _write_frames(out, results, every)
    if written.tables:
        inputs = map(typeset.input_of, written.tables)
        write_atomic(out / "latex" / "tables.tex", typeset.document(inputs, style.column))
    write_atomic(
        out / "index.html", page(sections, results, theme, written.problems, style, across)
    )
    return out / "index.html"


def _write_frames(out: Path, results: Results, every: list[Numbers]) -> None:
    """Write the tables of all settings as CSV, except those without rows."""
    frames = {
        "dial": [dial.slopes(results)],
        "means": [one.means for one in every],
        "paired": [one.paired for one in every],
        "ranking": [one.ranked.table for one in every],
        "costs": [one.costs[list(COST_COLUMNS)] for one in every],
        "matched": [matched.matched_table(one.results) for one in every],
        "matched_paired": [matched.matched_differences(one.results) for one in every],
    }
    for name, parts in frames.items():
        # Concatenating an empty frame could change the types of columns.
        filled = [part for part in parts if not part.empty]
        if filled:
            text = pd.concat(filled).to_csv(index=False, lineterminator="\n")
            write_atomic(out / f"{name}.csv", text)
