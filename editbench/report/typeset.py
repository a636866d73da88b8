"""Typesetting of tables in LaTeX: escaped text, and parts that fit the width of a paper's columns.

A table needs booktabs, and graphicx if it is wider than a line of the document.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from editbench.report.cells import FLOOR_MARKS
from editbench.report.paper import WIDTHS

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


def typeset_table(
    grid: Grid, caption: str, label: str, column: str, comments: Iterable[str] = ()
) -> str:
    """The LaTeX of a floating table.

    Args:
        grid: its content. The sentences of `grid.caption` are not used.
        caption: in LaTeX.
        label: in LaTeX.
        column: 'one' for a table in one column of a two-column paper; otherwise it spans both.
        comments: lines of text above the table.
    """
    # A starred float spans both columns of a two-column paper.
    kind = "table" if column == "one" else "table*"
    lines = [
        *_commented(comments),
        rf"\begin{{{kind}}}[t]",
        r"\centering\footnotesize",
        rf"\setlength{{\tabcolsep}}{{{COLSEP:g}pt}}",
        # Allows wider spaces between words in narrow columns of text.
        r"\setlength{\emergencystretch}{3em}",
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        r"\par\smallskip",
        "\n\n\\medskip\n".join(f"{FIT[0]}{part}{FIT[1]}" for part in _tabulars(grid, column)),
    ]
    lines += map(note_below, grid.notes)
    return "\n".join([*lines, rf"\end{{{kind}}}"]) + "\n"


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


def _commented(lines: Iterable[str]) -> list[str]:
    """Convert lines of text to LaTeX comments."""
    found = []
    for line in lines:
        # A line break in a record's text would end the comment.
        found += textwrap.wrap(" ".join(line.split()), 97, break_on_hyphens=False)
    return [f"% {line}" for line in found]
