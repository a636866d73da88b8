"""Reports: tables, figures and one self-contained page, made from the records of a runs folder and
nothing else."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from editbench.base.files import digest, write_atomic
from editbench.figures.curves import caption_of_groups
from editbench.figures.drawing import Drawing
from editbench.figures.panels import FONTS, STYLE
from editbench.figures.theme import Theme, display_name
from editbench.report import dial, figure_trade, figures, latex, matched, references
from editbench.report.costs import COSTS
from editbench.report.html import Section, page
from editbench.report.load import Problem, Results, load, require_readable
from editbench.report.numbers import Numbers, numbers_of
from editbench.report.paper import SCALE, TALLEST, WIDTHS, to_paper
from editbench.report.references import cited_in
from editbench.report.strips import pages, strips
from editbench.report.style import Style
from editbench.report.tables import curves
from editbench.report.titles import Wording
from editbench.report.write import csv, markdown, print_table

__all__ = ["Results", "Style", "every_setting", "load", "print_table", "report", "write_report"]

CAPTIONS = {
    "accuracy": "Share of starts whose target was reached with every other attribute kept, at the "
    "first crossing; whiskers are 95 % intervals. A cross: skipped or failed.",
    # The limit that this names is FEWEST of editbench.figures.panels.
    "ad": "Mean change of the other attributes against the achieved effect on the target, both in "
    "σ; lower is better. A start counts once in a bin, where its walk first passes the centre. Bands "
    "are 95 % intervals over starts; bins of fewer than 30 starts are hidden.",
    "trade": figure_trade.CAPTION,
}
CURVE_CAPTION = "Against the achieved effect on the target; bands are 95 % intervals."
CURVE_TITLES = {
    "ad": "Attribute dependency",
    "ad_max": "Largest attribute dependency",
    "ad_signed": "Signed attribute dependency",
}
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
ORDER = ("accuracy", "ad", "trade")  # these figures come first, in this order
LONGEST_NAME = 80  # characters of a setting or attribute in the name of a file


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
    problems = list(results.problems)
    cited = cited_in(results, style.folders)
    write_atomic(out / references.FILE, cited.bibtex)
    if cited.problem:
        problems.append(Problem(references.FILE, cited.problem))
    printed_theme = theme
    if files and style.column == "one":
        # Fewer panels side by side: the same figure made narrow could not be read.
        printed_theme = theme.with_width(WIDTHS["one"] / SCALE)
    sections: list[Section] = []
    written: list[str] = []
    for numbers in every:
        section = Section(numbers)
        suffix = f"_{_slug(numbers.name)}" if numbers.name else ""
        try:
            tables = latex.tables(numbers, theme, style, cited, suffix)
            written += _write_latex(out / "latex", tables, suffix, style)
        except Exception as error:  # as for a figure
            problems.append(Problem("LaTeX tables" + suffix, f"{type(error).__name__}: {error}"))
        drawings = _drawings(numbers, theme, problems, style.folders)
        narrow = {}
        if printed_theme is not theme:
            narrow = _by_file(_drawings(numbers, printed_theme, [], style.folders))
        for one in drawings:
            path = out / "figures" / f"{_slug(one.file)}{suffix}"
            # What cannot be made narrow is printed as it is on the page.
            draw_printed = narrow.get(one.file, one.draw)
            drawn = _draw(path, one.draw, draw_printed, problems, files, style)
            if drawn:
                place = section.figures if one.first else section.more
                place.append((one.title, one.caption, drawn))
        section.strips, unreadable = strips(numbers.results, theme)
        problems += unreadable
        # As wide as the text of a paper, and then no taller.
        ratio = TALLEST / WIDTHS[style.column or "two"]
        for attribute, starts in section.strips.items() if files else ():
            path = out / "figures" / f"strips_{_slug(attribute)}{suffix}.png"
            try:
                _write_pages(path, pages(starts, theme.attribute(attribute), theme, ratio))
            except (ValueError, MemoryError) as error:
                problems.append(Problem(f"strips of {attribute}", str(error)))
        sections.append(section)
    # The dial compares worlds, and each world is a setting: it cannot be drawn within one.
    across = []
    narrow = {}
    if printed_theme is not theme:
        narrow = _by_file(dial.drawings(results, printed_theme))
    for one in dial.drawings(results, theme):
        path = out / "figures" / one.file
        draw_printed = narrow.get(one.file, one.draw)
        drawn = _draw(path, one.draw, draw_printed, problems, files, style)
        if drawn:
            across.append((one.title, one.caption, drawn))
    slopes = dial.slopes(results)
    if len(slopes):
        write_atomic(out / "dial.csv", slopes.to_csv(index=False, lineterminator="\n"))
    for file, frames in {
        "means": [one.means for one in every],
        "paired": [one.paired for one in every],
        "ranking": [one.ranked.table for one in every],
        "costs": [one.costs[list(COST_COLUMNS)] for one in every],
        "matched": [matched.matched_table(one.results) for one in every],
        "matched_paired": [matched.matched_differences(one.results) for one in every],
    }.items():
        # concat of an empty frame could change the types of the others' columns.
        frames = [frame for frame in frames if not frame.empty]
        if frames:
            write_atomic(
                out / f"{file}.csv", pd.concat(frames).to_csv(index=False, lineterminator="\n")
            )
    if written:
        write_atomic(
            out / "latex" / "tables.tex", latex.document(map(latex.input_of, written), style.column)
        )
    write_atomic(out / "index.html", page(sections, results, theme, problems, style, across))
    return out / "index.html"


def _write_latex(folder: Path, tables: Mapping[str, str], suffix: str, style: Style) -> list[str]:
    """Write tables, and for each a document that compiles it alone; their names in the folder."""
    names = []
    for key, text in tables.items():
        name = f"{key}{suffix}"
        write_atomic(folder / f"{name}.tex", text)
        alone = latex.document([latex.input_of(name)], style.column)
        write_atomic(folder / f"{name}_standalone.tex", alone)
        names.append(name)
    return names


def _drawings(
    numbers: Numbers, theme: Theme, problems: list[Problem], folders: Sequence[Path] = ()
) -> list[Drawing]:
    """Every figure that the records have data for.

    Args:
        numbers: of one setting.
        theme: of the methods.
        problems: figures of metrics that cannot be prepared are added to it.
        folders: a user's own configuration folders.
    """
    table = numbers.table
    results = numbers.results
    found = []
    if table["accuracy"].notna().any():
        accuracy = partial(figures.accuracy_figure, table, theme)
        found.append(Drawing("accuracy", "Accuracy", CAPTIONS["accuracy"], accuracy, first=True))
    # Where too few attributes are readable there are cells and no means.
    if numbers.costs["accuracy"].notna().any():
        trade = partial(figure_trade.trade_figure, numbers.costs, theme)
        title = "Accuracy against side effects and cost"
        found.append(Drawing("trade", title, CAPTIONS["trade"], trade, first=True))
    # Metrics that bring a figure are drawn by it, and their curves are not drawn a second time.
    own = metric_figures(results, folders)
    for group, name in own.items():
        try:
            found += find_function(name)(results, theme)
        except Exception as error:  # somebody's figure is never worth the report
            problems.append(Problem(f"figure of {group}", f"{type(error).__name__}: {error}"))
    for name, curve in curves(results, without=own).items():
        title = CURVE_TITLES.get(name, display_name(name))
        label = "AD, σ" if name.startswith("ad") else display_name(name)
        draw = partial(figures.curve_figure, curve, theme, label)
        caption = CAPTIONS.get(name, CURVE_CAPTION)
        caption += caption_of_groups(set(curve["method"]), theme)
        found.append(Drawing(name, title, caption, draw, first=name in CAPTIONS))
    return sorted(found, key=lambda one: [*ORDER, one.file].index(one.file))


def _by_file(drawings: Iterable[Drawing]) -> dict[str, Callable[[], Figure]]:
    """Name of the file -> what makes the figure."""
    found = {}
    for one in drawings:
        found[one.file] = one.draw
    return found


def metric_figures(results: Results, folders: Sequence[Path] = ()) -> dict[str, str]:
    """Metric -> dotted name of the function that draws it.

    Args:
        results: the records.
        folders: a user's own configuration folders.
    """
    found: dict[str, str] = {}
    for name, wording in Wording(results, folders).metrics():
        if wording.get("figure"):
            found.setdefault(name, str(wording["figure"]))
    return dict(sorted(found.items()))


def find_function(name: str) -> Callable[[Results, Theme], list[Drawing]]:
    """The function with a dotted name.

    Raises:
        ImportError, AttributeError: there is no such module, or no such function in it.
    """
    module, _, function = name.rpartition(".")
    return getattr(import_module(module), function)


def _write_pages(path: Path, parts: Sequence[bytes]) -> None:
    """Write a file a page: the first has the plain name, further ones end in _2, _3 and so on. What
    a longer report left there is removed."""
    for number in itertools.count(1):
        file = path if number == 1 else path.with_stem(f"{path.stem}_{number}")
        if number <= len(parts):
            write_atomic(file, parts[number - 1])
        elif file.exists():
            file.unlink()
        else:
            return


def _draw(
    path: Path,
    draw: Callable[[], Figure],
    draw_printed: Callable[[], Figure],
    problems: list[Problem],
    files: bool,
    style: Style,
) -> str:
    """The SVG for the page, or '' when it failed.

    Args:
        path: of the files, without a suffix.
        draw: makes the figure.
        draw_printed: makes it for print; `draw` itself, where it is the same.
        problems: a figure that fails is added to it.
        files: whether it is saved too, as SVG, and as PNG and PDF at the size of a paper's column.
        style: font and column.

    Raises:
        EditbenchError: a file cannot be written.
    """
    made = {}
    try:
        with matplotlib.rc_context(STYLE | {"font.family": FONTS[style.font]}):  # type: ignore[arg-type]
            figure = draw()
            # Rendered before to_paper, which shrinks the figure in place.
            svg = figures.render(figure, "svg")
            drawn = figures.for_page(svg)
            if files:
                made["svg"] = svg
                if draw_printed is not draw:
                    figure = draw_printed()
                to_paper(figure, style.column)
                made["png"] = figures.render(figure, "png")
                # Both have one layout, which takes as long as the drawing.
                figure.set_layout_engine(None)
                made["pdf"] = figures.render(figure, "pdf")
    except Exception as error:  # a plot is never worth the tables
        problems.append(Problem(f"figure {path.name}", f"{type(error).__name__}: {error}"))
        return ""
    # A full disk or a missing permission would hit every other file too, so it ends the report.
    for kind, data in made.items():
        write_atomic(path.with_name(f"{path.name}.{kind}"), data)
    return drawn


def _slug(text: str) -> str:
    """A short file name; never a path."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")
    if text.isascii() and len(plain) <= LONGEST_NAME:
        return plain or "x"
    # Two long settings, or two attributes in another script, would have one name and one file.
    end = f"-{digest(text, 8)}"
    return (plain or "x")[: LONGEST_NAME - len(end)] + end
