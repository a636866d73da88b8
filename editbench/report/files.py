"""The files of a report: figures, strips and LaTeX tables of each setting."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from editbench.base.files import digest, write_atomic
from editbench.figures.drawing import Drawing
from editbench.figures.panels import FONTS, STYLE
from editbench.figures.theme import Theme
from editbench.report import figures, latex, typeset
from editbench.report.drawings import drawings_of
from editbench.report.html import Section
from editbench.report.numbers import Numbers
from editbench.report.paper import SCALE, TALLEST, WIDTHS, to_paper
from editbench.report.problem import Problem
from editbench.report.references import Cited
from editbench.report.strips import pages, strips
from editbench.report.style import Style

LONGEST_NAME = 80  # maximum length of a setting or attribute in a file name


class ReportFiles:
    """Writes the files of a report next to its page. A failure is listed and stops nothing else.

    Args:
        out: folder of the report.
        theme: how methods and attributes are written and coloured.
        style: font, and column of a paper.
        figure_files: whether to write figures and strips to files too, not only for the page.
        problems: earlier failures; new ones are added.
    """

    def __init__(
        self,
        out: Path,
        theme: Theme,
        style: Style,
        figure_files: bool,
        problems: Sequence[Problem] = (),
    ) -> None:
        self.out = out
        self.theme = theme
        self.style = style
        self.figure_files = figure_files
        self.problems = list(problems)
        self.tables: list[str] = []  # names of the written LaTeX tables
        self.printed_theme = theme
        if figure_files and style.column == "one":
            # The figures are drawn again with fewer panels per row, since scaling would make them
            # illegible.
            self.printed_theme = theme.with_width(WIDTHS["one"] / SCALE)

    def write_section(self, numbers: Numbers, cited: Cited) -> Section:
        """Write the files of one setting, and return its section of the page.

        Args:
            numbers: of the setting.
            cited: papers that its tables cite.
        """
        section = Section(numbers)
        suffix = f"_{slug(numbers.name)}" if numbers.name else ""
        self._write_latex(numbers, cited, suffix)

        drawings = drawings_of(numbers, self.theme, self.problems, self.style.folders)
        section.figures = self.draw(drawings, suffix)
        section.strips, unreadable = strips(numbers.results, self.theme)
        self.problems += unreadable
        if self.figure_files:
            self._write_strips(section, suffix)
        return section

    def draw(self, drawings: Iterable[Drawing], suffix: str = "") -> list[tuple[Drawing, str]]:
        """Draw figures, and write them to files if `figure_files` is set.

        Args:
            drawings: the figures.
            suffix: of the file names.

        Returns:
            The figures that could be drawn, each with its SVG for the page.
        """
        found = []
        for one in drawings:
            path = self.out / "figures" / f"{slug(one.file)}{suffix}"
            svg = self._draw_one(path, one.draw)
            if svg:
                found.append((one, svg))
        return found

    def _draw_one(self, path: Path, draw: Callable[[Theme], Figure]) -> str:
        """Draw one figure and write its files.

        Args:
            path: of the files, without a suffix.
            draw: draws the figure with a theme.

        Returns:
            The SVG for the page, or '' if drawing failed.

        Raises:
            EditbenchError: a file cannot be written.
        """
        made = {}
        font = {"font.family": FONTS[self.style.font]}
        try:
            with matplotlib.rc_context(STYLE | font):  # type: ignore[arg-type]
                figure = draw(self.theme)
                # Rendered first, since to_paper shrinks the figure in place.
                svg = figures.render(figure, "svg")
                drawn = figures.for_page(svg)
                if self.figure_files:
                    made["svg"] = svg
                    if self.printed_theme is not self.theme:
                        figure = draw(self.printed_theme)
                    to_paper(figure, self.style.column)
                    made["png"] = figures.render(figure, "png")
                    # The layout takes as long as the drawing, so PNG and PDF share it.
                    figure.set_layout_engine(None)
                    made["pdf"] = figures.render(figure, "pdf")
        except Exception as error:  # a figure must not stop the report
            self._add_problem(f"figure {path.name}", error)
            return ""
        # Not caught: a full disk or a missing permission would affect all other files too.
        for kind, data in made.items():
            write_atomic(path.with_name(f"{path.name}.{kind}"), data)
        return drawn

    def _write_latex(self, numbers: Numbers, cited: Cited, suffix: str) -> None:
        """Write the tables of a setting, and for each a document that can be compiled."""
        folder = self.out / "latex"
        try:
            tables = latex.tables(numbers, self.theme, self.style, cited, suffix)
            for key, text in tables.items():
                name = f"{key}{suffix}"
                write_atomic(folder / f"{name}.tex", text)
                alone = typeset.document([typeset.input_of(name)], self.style.column)
                write_atomic(folder / f"{name}_standalone.tex", alone)
                self.tables.append(name)
        except Exception as error:  # as for a figure
            self._add_problem("LaTeX tables" + suffix, error)

    def _write_strips(self, section: Section, suffix: str) -> None:
        # Limits the height of a page when it is as wide as a paper's text.
        ratio = TALLEST / WIDTHS[self.style.column or "two"]
        for attribute, starts in section.strips.items():
            path = self.out / "figures" / f"strips_{slug(attribute)}{suffix}.png"
            try:
                write_pages(path, pages(starts, self.theme.attribute(attribute), self.theme, ratio))
            except (ValueError, MemoryError) as error:
                self.problems.append(Problem(f"strips of {attribute}", str(error)))

    def _add_problem(self, what: str, error: Exception) -> None:
        self.problems.append(Problem(what, f"{type(error).__name__}: {error}"))


def write_pages(path: Path, parts: Sequence[bytes]) -> None:
    """Write one file per page: the first has the plain name, others end in _2, _3 and so on.

    Files of an earlier report with more pages are removed.

    Args:
        path: of the first page, with its ending.
        parts: the contents of the pages, in order.
    """
    for number in itertools.count(1):
        file = path if number == 1 else path.with_stem(f"{path.stem}_{number}")
        if number <= len(parts):
            write_atomic(file, parts[number - 1])
        # Pages have no gaps in their numbers, so the first one that is absent ends the search.
        elif file.exists():
            file.unlink()
        else:
            return


def slug(text: str) -> str:
    """A short file name, which cannot be a path."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")
    if text.isascii() and len(plain) <= LONGEST_NAME:
        return plain or "x"
    # A hash, since two long names, or names in another script, could be shortened to the same text.
    end = f"-{digest(text, 8)}"
    return (plain or "x")[: LONGEST_NAME - len(end)] + end
