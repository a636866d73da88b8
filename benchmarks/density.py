"""Counts comments, long lines and packed statements in Python files, and compares with targets.

The output has one row per figure: whether the target is met, the name of the figure with its unit,
its value over all files, and the target. The targets are those of the style rules in
CONTRIBUTING.md. The exit code is 1 if a target is missed, otherwise 0. A run takes some seconds.

    python benchmarks/density.py                            # editbench, methods, metrics
    python benchmarks/density.py editbench/run benchmarks   # these folders or files
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of the repository
PRODUCT = ("editbench", "methods", "metrics")  # the folders that are installed
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
LONG = 100  # characters; a longer line counts as long


@dataclass
class Counts:
    """The counts of any number of files."""

    files: int = 0
    lines: int = 0
    code_lines: int = 0  # lines that are not blank
    comments: int = 0
    long_lines: int = 0
    parallel_assignments: int = 0
    ternaries: int = 0
    comprehensions: int = 0

    def add(self, other: Counts) -> None:
        """Add the counts of other files."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        name: with the unit.
        value: over all files.
        side: '>=' if the value must be at least the target, '<=' if at most.
        target: in the unit of the value.
    """

    name: str
    value: float
    side: str
    target: float

    @property
    def met(self) -> bool:
        """Whether the value meets the target."""
        if self.side == ">=":
            return self.value >= self.target
        return self.value <= self.target


def is_parallel_assignment(node: ast.AST) -> bool:
    """Whether a statement assigns several values to several names at once: `a, b = 1, 2`."""
    if not isinstance(node, ast.Assign):
        return False
    left = node.targets[0]
    right = node.value
    return isinstance(left, ast.Tuple) and isinstance(right, ast.Tuple) and len(right.elts) > 1


def count_file(path: Path) -> Counts:
    """Count one Python file."""
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    counts = Counts(files=1, lines=len(lines))
    for line in lines:
        counts.code_lines += bool(line.strip())
        counts.long_lines += len(line) > LONG
    # The syntax tree does not contain comments.
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        counts.comments += token.type == tokenize.COMMENT
    for node in ast.walk(ast.parse(text)):
        counts.parallel_assignments += is_parallel_assignment(node)
        counts.ternaries += isinstance(node, ast.IfExp)
        counts.comprehensions += isinstance(node, COMPREHENSIONS)
    return counts


def figures(counts: Counts) -> list[Figure]:
    """Compute the figures of the report from the counts."""
    # An empty folder must not lead to a division by zero.
    lines = max(counts.lines, 1)
    code_lines = max(counts.code_lines, 1)
    # Comments and long lines are shares of all lines, and packed statements of lines with text.
    comments = 100 * counts.comments / lines
    long_lines = 100 * counts.long_lines / lines
    assignments = 1000 * counts.parallel_assignments / code_lines
    ternaries = 1000 * counts.ternaries / code_lines
    comprehensions = 1000 * counts.comprehensions / code_lines
    return [
        Figure("comments per 100 lines", comments, ">=", 5),
        Figure("lines over 100 characters, %", long_lines, "<=", 5),
        Figure("parallel assignments per 1,000 lines", assignments, "<=", 2),
        Figure("ternaries per 1,000 lines", ternaries, "<=", 20),
        Figure("comprehensions per 1,000 lines", comprehensions, "<=", 25),
    ]


def python_files(path: Path) -> list[Path]:
    """The file itself, or all Python files below a folder."""
    if path.is_file():
        return [path]
    return sorted(path.rglob("*.py"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        help=f"files and folders to count (default: {', '.join(PRODUCT)})",
    )
    arguments = parser.parse_args()
    counts = Counts()
    for path in arguments.paths or [ROOT / name for name in PRODUCT]:
        for file in python_files(path):
            counts.add(count_file(file))
    print(f"{counts.files} files, {counts.lines} lines")
    print(f"{'result':7} {'figure':36} {'value':>6}  target")
    missed = False
    for figure in figures(counts):
        missed = missed or not figure.met
        result = "ok" if figure.met else "missed"
        print(f"{result:7} {figure.name:36} {figure.value:6.1f}  {figure.side} {figure.target}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
