"""How dense the sources are: comments, long lines, packed statements.

    python benchmarks/density.py              the product: editbench, methods, metrics
    python benchmarks/density.py editbench/run methods/gradctrl

The exit code is 1 where an aim is missed.
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("editbench", "methods", "metrics")
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
LONG = 100  # characters


@dataclass
class Counts:
    """What is counted, over any number of files."""

    files: int = 0
    lines: int = 0
    code_lines: int = 0  # lines that are not blank
    comments: int = 0
    long_lines: int = 0
    parallel_assignments: int = 0
    ternaries: int = 0
    comprehensions: int = 0

    def add(self, other: Counts) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def is_parallel_assignment(node: ast.AST) -> bool:
    """Whether a statement assigns several values to several names at once: `a, b = 1, 2`."""
    if not isinstance(node, ast.Assign):
        return False
    left, right = node.targets[0], node.value
    return isinstance(left, ast.Tuple) and isinstance(right, ast.Tuple) and len(right.elts) > 1


def count_file(path: Path) -> Counts:
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    counts = Counts(files=1, lines=len(lines))
    for line in lines:
        counts.code_lines += bool(line.strip())
        counts.long_lines += len(line) > LONG
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        counts.comments += token.type == tokenize.COMMENT
    for node in ast.walk(ast.parse(text)):
        counts.parallel_assignments += is_parallel_assignment(node)
        counts.ternaries += isinstance(node, ast.IfExp)
        counts.comprehensions += isinstance(node, COMPREHENSIONS)
    return counts


def figures(counts: Counts) -> list[tuple[str, float, str, float]]:
    """Name, value, side and aim of each figure."""
    lines = max(counts.lines, 1)
    code_lines = max(counts.code_lines, 1)
    return [
        ("comments a 100 lines", 100 * counts.comments / lines, ">=", 5),
        ("lines over 100 characters, %", 100 * counts.long_lines / lines, "<=", 5),
        (
            "parallel assignments a 1,000 lines",
            1000 * counts.parallel_assignments / code_lines,
            "<=",
            2,
        ),
        ("ternaries a 1,000 lines", 1000 * counts.ternaries / code_lines, "<=", 20),
        ("comprehensions a 1,000 lines", 1000 * counts.comprehensions / code_lines, "<=", 25),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "paths", nargs="*", type=Path, help="files and folders; the product by default"
    )
    arguments = parser.parse_args()
    counts = Counts()
    for path in arguments.paths or [ROOT / name for name in PRODUCT]:
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            counts.add(count_file(file))
    print(f"{counts.files} files, {counts.lines} lines")
    missed = False
    for name, value, side, aim in figures(counts):
        good = value >= aim if side == ">=" else value <= aim
        missed = missed or not good
        print(f"{'ok    ' if good else 'missed'}  {name:36} {value:6.1f}  (aim {side} {aim})")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
