"""Reports: tables, figures and one self-contained page, made from the records of a runs folder and
nothing else."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from editbench.base.files import write_atomic
from editbench.figures.drawing import Drawing
from editbench.figures.theme import Theme
from editbench.report import dial, figure_dial, latex, matched, references
from editbench.report.costs import COSTS
from editbench.report.files import ReportFiles
from editbench.report.html import page
from editbench.report.load import Problem, Results, load, require_readable
from editbench.report.numbers import Numbers, numbers_of
from editbench.report.references import cited_in
from editbench.report.style import Style
from editbench.report.write import csv, markdown, print_table

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
    """`load`, then `write_report`: see there.

    Args:
        root: folder of the records.
        out: where the files go; None takes ROOT/report.
        only: run ids to report; None takes every record of the folder.
        by_seed: whether each seed is a setting of its own; else seeds are one cell of a table.
        files: whether the figures are written as files too.
        style: how it is written; None takes ROOT/report.yaml, where there is one.

    Returns:
        The path of the page.

    Raises:
        EditbenchError: `root` is missing or holds no run, or `out` cannot be written.
    """
    style = style or Style.of_runs(Path(root))
    results = style.choose(load(Path(root), only, by_seed))
    return write_report(results, every_setting(results, style), out, files, style)


def every_setting(results: Results, style: Style | None = None) -> list[Numbers]:
    """The numbers of each setting, which the terminal's table and the page both show.

    Args:
        results: the records.
        style: in which order.
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
    """Write index.html, table.csv, table.md, means.csv, ranking.csv, paired.csv, costs.csv,
    matched.csv, matched_paired.csv, references.bib and latex/. The tables are written first, and a
    figure that fails is listed in the page, so what can be reported is.

    Args:
        results: the records.
        every: their numbers, see `every_setting`.
        out: where the files go; None takes `report` in the folder of the records.
        files: whether figures/ is written too: every figure as SVG, PNG and PDF, and the strips.
            It takes several times as long as the page, which holds what it shows.
        style: how it is written.

    Returns:
        The path of the page.

    Raises:
        EditbenchError: no run is readable, or `out` cannot be written.
    """
    # A page without a run would only hide that every folder is damaged.
    require_readable(results)
    out = results.root / "report" if out is None else Path(out)
    style = style or Style()
    # From all settings together, so that a method keeps its colour across the sections of the page.
    theme = style.theme(results)
    # The tables before anything that draws: they must be there whatever else fails.
    write_atomic(out / "table.csv", csv(results))
    write_atomic(out / "table.md", markdown(results, every, style, theme))
    cited = cited_in(results, style.folders)
    write_atomic(out / references.FILE, cited.bibtex)
    written = ReportFiles(out, theme, style, files, results.problems)
    if cited.problem:
        written.problems.append(Problem(references.FILE, cited.problem))
    sections = [written.write_section(numbers, cited) for numbers in every]

    # The dial compares worlds, and each world is a setting: it cannot be drawn within one.
    def dial_drawings(theme: Theme, _: list[Problem]) -> list[Drawing]:
        return figure_dial.drawings(results, theme)

    across = [(one.title, one.caption, svg) for one, svg in written.draw(dial_drawings)]
    _write_frames(out, results, every)
    if written.tables:
        inputs = map(latex.input_of, written.tables)
        write_atomic(out / "latex" / "tables.tex", latex.document(inputs, style.column))
    write_atomic(
        out / "index.html", page(sections, results, theme, written.problems, style, across)
    )
    return out / "index.html"


def _write_frames(out: Path, results: Results, every: list[Numbers]) -> None:
    """Write the tables of all settings as CSV, those that have rows."""
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
        # concat of an empty frame could change the types of the others' columns.
        filled = [part for part in parts if not part.empty]
        if filled:
            text = pd.concat(filled).to_csv(index=False, lineterminator="\n")
            write_atomic(out / f"{name}.csv", text)
