"""A comparison as Markdown, for the summary page of GitHub Actions."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from editbench.base.files import explain_disk_errors
from editbench.regression.compare import VERDICTS, Finding, RegressionResult
from editbench.regression.show import counts, difference, merge_alike, number

# This environment variable has the path of a file to which every command of a step appends.
SUMMARY = "GITHUB_STEP_SUMMARY"
LARGEST = 1024 * 1024  # bytes of a step's summary; GitHub does not show a larger one
ROWS = 200  # most rows of the table of failures
LONGEST = 300  # characters of a cell
CUT = "\n\n(cut here: the full summary exceeds the size that GitHub shows)\n"


def append_summary(text: str) -> None:
    """Append Markdown to the summary of the step; outside GitHub Actions do nothing.

    Raises:
        EditbenchError: the file cannot be written.
    """
    name = os.environ.get(SUMMARY)
    if not name:
        return
    path = Path(name)
    with explain_disk_errors(path), path.open("ab") as stream:
        # In append mode, the position is the size of what earlier commands wrote.
        room = LARGEST - stream.tell()
        stream.write(shortened(text, room))


def shortened(text: str, room: int) -> bytes:
    """A text as UTF-8, cut to a number of bytes. A text that is cut ends with CUT.

    Args:
        text: Markdown.
        room: largest number of bytes; with 0 or less, nothing is left.
    """
    whole = text.encode()
    if len(whole) <= room:
        return whole
    kept = max(0, room - len(CUT.encode()))
    # Bytes of a character that was cut in two are ignored. There may not even be room for CUT.
    return (whole[:kept].decode(errors="ignore") + CUT).encode()[: max(0, room)]


def markdown(title: str, comparison: RegressionResult, failures: Sequence[Finding]) -> str:
    """The verdict, a table of the failures, and the number of findings of each method.

    Args:
        title: what was checked, and against which pins.
        comparison: of the check.
        failures: of the check.
    """
    parts = [
        f"## {verdict(comparison, failures)}",
        escape_markdown(title),
        f"{counts(comparison)}.",
    ]
    if failures:
        heads = ("verdict", "run", "row", "pinned", "now", "difference [95 %]", "tolerance", "why")
        # With --strict, all rows of a new metric version fail for the same reason.
        rows = [failed_row(finding) for finding in merge_alike(failures)]
        parts.append(table(heads, rows[:ROWS], numbers=range(3, 7)))
        if len(rows) > ROWS:
            parts.append(f"{len(rows) - ROWS} more rows failed.")
    by_method: dict[str, Counter[str]] = {}
    for finding in comparison.findings:
        by_method.setdefault(method_of(finding), Counter())[finding.verdict] += 1
    kinds = [kind for kind in VERDICTS if comparison.count(kind)]
    counted = [[name, *(str(found[kind]) for kind in kinds)] for name, found in by_method.items()]
    parts.append(table(("method", *kinds), counted, numbers=range(1, len(kinds) + 1)))
    notes = [f"- {escape_markdown(note)}" for note in comparison.notes[:ROWS]]
    parts += ["\n".join(notes)] if notes else []
    return "\n\n".join(parts) + "\n\n"


def verdict(comparison: RegressionResult, failures: Sequence[Finding]) -> str:
    """The heading: whether the check passed, and how many rows failed.

    Args:
        comparison: of the check. If nothing could be compared, the check failed.
        failures: of the check.
    """
    if comparison.blind:
        return "❌ editbench check: nothing could be compared"
    if failures:
        rows = "1 row fails" if len(failures) == 1 else f"{len(failures)} rows fail"
        return f"❌ editbench check: {rows}"
    return "✅ editbench check: agrees with the pinned numbers"


def failed_row(finding: Finding) -> list[str]:
    """The cells of a finding in the table of failures."""
    return [
        finding.verdict,
        finding.run,
        finding.row or "the run",
        number(finding.old),
        number(finding.new),
        difference(finding),
        number(finding.tolerance),
        finding.text,
    ]


def method_of(finding: Finding) -> str:
    """The method of a finding: the first word of 'gradctrl x smile, seed 0'."""
    return finding.run.split(" x ")[0]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int]) -> str:
    """A Markdown table.

    Args:
        heads: headings of the columns, in Markdown.
        rows: cells of each row, as many as headings. They may be text of records and are escaped.
        numbers: positions, from 0, of the columns that are aligned to the right.
    """
    right = set(numbers)
    rule = ["---:" if place in right else "---" for place in range(len(heads))]
    lines = [heads, rule, *([escape_markdown(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape_markdown(text: str) -> str:
    """Escape text of a record, so that it makes no cell, tag, line or link of its own.

    At most LONGEST characters are kept.
    """
    text = " ".join(text.split())[:LONGEST]
    for letter in "\\`*_[]|~":
        text = text.replace(letter, f"\\{letter}")
    # The ampersand comes first, since the other replacements contain it. GitHub links @NAME.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("@", "&#64;")
