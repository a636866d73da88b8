"""A comparison as a table on the terminal, as JUnit XML and as annotations of GitHub Actions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from editbench.base.files import write_atomic
from editbench.regression.compare import (
    AGREES,
    FAILS,
    REPORTED,
    VERDICTS,
    Finding,
    RegressionResult,
    Verdict,
)

# Rows of the table, unless all are requested. With more, the failures would scroll off the screen.
LONGEST = 60
# Rows that agree have no colour, so that a colour always means something to do.
STYLES = dict.fromkeys(FAILS, "red") | dict.fromkeys(REPORTED, "yellow")
# How the line of counts writes each verdict that agrees.
AGREEMENT: dict[Verdict, str] = {
    "same": "the same",
    "within": "within tolerance",
    "noise": "beyond it with an interval that contains zero",
}
UNPRINTABLE = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd]")  # not allowed in XML 1.0


def print_comparison(
    comparison: RegressionResult, console: Console, every: bool = False, title: str = ""
) -> None:
    """Print a table of the findings, failures first, then the notes and a line of counts.

    Args:
        comparison: to print.
        console: to print to.
        every: whether to show all rows, including those that agree or are unread. Otherwise, rows
            of a run with the same text are merged, and at most LONGEST are shown.
        title: of the table; '' for none.
    """
    shown = sorted(
        (f for f in comparison.findings if every or f.verdict not in ("same", "within", "unread")),
        # The sort is stable, so rows with the same verdict keep the order of the pins.
        key=lambda f: VERDICTS.index(f.verdict),
    )
    rows = shown if every else merge_alike(shown)
    cut = rows if every else rows[:LONGEST]
    if cut:
        table = Table(
            title=escape(title) or None,
            title_justify="left",
            title_style="bold",
            header_style="bold",
            box=None,
            pad_edge=False,
        )
        for heading in ("verdict", "run", "row"):
            # Labels of variants can be long and are wrapped; verdict and row are not.
            table.add_column(heading, no_wrap=heading != "run", overflow="fold")
        for heading in ("pinned", "new", "difference [95 %]", "tolerance"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("why", overflow="fold")
        for finding in cut:
            style = STYLES.get(finding.verdict, "")
            table.add_row(
                # Text of records is escaped, since rich reads brackets as markup.
                f"[{style}]{finding.verdict}[/]" if style else finding.verdict,
                escape(finding.run),
                escape(finding.row),
                number(finding.old),
                number(finding.new),
                escape(difference(finding)),
                number(finding.tolerance),
                escape(finding.text),
            )
        console.print(table)
        if len(cut) < len(rows):
            console.print("further rows are not shown; --all shows all", style="dim")
    for note in comparison.notes:
        console.print(escape(f"note: {note}"), style="dim", soft_wrap=True)
    console.print(escape(counts(comparison)), soft_wrap=True)


def counts(comparison: RegressionResult) -> str:
    """How many findings have each verdict: '2 moved, 1 missing, 540 agree (...)'."""
    parts = [
        f"{comparison.count(kind)} {kind}" for kind in (*FAILS, *REPORTED) if comparison.count(kind)
    ]
    # Unread rows are counted apart, since they were not compared.
    agree = comparison.count(*AGREES)
    detail = [
        f"{comparison.count(kind)} {words}"
        for kind, words in AGREEMENT.items()
        if comparison.count(kind)
    ]
    parts.append(f"{agree} agree" + (f" ({', '.join(detail)})" if detail else ""))
    unread = comparison.count("unread")
    return ", ".join(parts) + (f"; {unread} unread (no interpretable value)" if unread else "")


def number(value: float) -> str:
    """A number with four significant digits; a dash for NaN and infinity."""
    return f"{value:.4g}" if math.isfinite(value) else "–"


def difference(finding: Finding) -> str:
    """The difference with its interval, '-0.12 [-0.15, -0.09]'; without samples only the former."""
    if not math.isfinite(finding.difference):
        return "–"
    interval = f" [{finding.low:+.3g}, {finding.high:+.3g}]" if finding.pairs else ""
    return f"{finding.difference:+.3g}{interval}"


def sentence(finding: Finding) -> str:
    """Everything about a finding except its run, in one line."""
    # Findings of a whole run have no row.
    row = f"{finding.row}: " if finding.row else ""
    if not math.isfinite(finding.difference):
        return f"{row}{finding.verdict}, {finding.text}"
    text = f", {finding.text}" if finding.text else ""
    return (
        f"{row}{finding.verdict}{text}: {number(finding.old)} -> {number(finding.new)}, difference "
        f"{difference(finding)}, tolerance {number(finding.tolerance)}"
    )


def write_junit(path: Path, comparison: RegressionResult, failures: Sequence[Finding]) -> None:
    """Write JUnit XML with a test case for each row that was compared.

    Rows of a run that cannot be compared for the same reason are one skipped case. Unread rows of
    all runs are one skipped case.

    Args:
        path: of the file; an earlier file is replaced.
        comparison: to write.
        failures: the findings of `comparison` that are failed cases; not copies of them.

    Raises:
        EditbenchError: the file cannot be written.
    """
    # By identity, since two findings may be equal.
    failed = {id(finding) for finding in failures}
    reported = [f for f in comparison.findings if f.verdict in REPORTED and id(f) not in failed]
    unread = comparison.count("unread")
    apart = {id(finding) for finding in reported}
    cases = [f for f in comparison.findings if f.verdict != "unread" and id(f) not in apart]
    cases += merge_alike(reported)
    skipped = [f for f in cases if id(f) not in failed and f.verdict not in AGREES]
    suite = ElementTree.Element(
        "testsuite",
        name="editbench check",
        tests=str(len(cases) + bool(unread)),
        errors="0",
        failures=str(len(failures)),
        skipped=str(len(skipped) + bool(unread)),
        time="0",
    )
    for finding in cases:
        # Viewers group cases by class, so each run is a group.
        case = _case(suite, finding.run, finding.row or "run")
        words = _printable(sentence(finding))
        if id(finding) in failed:
            ElementTree.SubElement(
                case, "failure", message=words, type=finding.verdict
            ).text = words
        # Viewers show a skipped case without making the suite fail.
        elif finding.verdict not in AGREES:
            ElementTree.SubElement(case, "skipped", message=words)
    if unread:
        case = _case(suite, "editbench check", "unread rows")
        words = f"{unread} rows have no value, or a note that says not to interpret it"
        ElementTree.SubElement(case, "skipped", message=words)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    # Indented, since people read the file too.
    ElementTree.indent(root)
    write_atomic(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _case(suite: ElementTree.Element, group: str, name: str) -> ElementTree.Element:
    """Add a test case to a suite."""
    return ElementTree.SubElement(
        suite, "testcase", classname=_printable(group), name=_printable(name), time="0"
    )


def github_annotations(comparison: RegressionResult, failures: Sequence[Finding]) -> list[str]:
    """Workflow commands of GitHub Actions: at most one '::error' and one '::notice' for each run.

    Args:
        comparison: to show.
        failures: the findings of `comparison` that failed; not copies of them.

    Returns:
        The '::error' lines, with all failures of a run, then the '::notice' lines, with its other
        findings that are missing, new or not comparable.
    """
    failed = {id(finding) for finding in failures}
    reported = [
        f
        for f in comparison.findings
        if id(f) not in failed and f.verdict in (*REPORTED, "missing")
    ]
    lines = []
    for level, findings in (("error", list(failures)), ("notice", reported)):
        # GitHub shows only the first annotations, so there is one per run and not one per finding.
        # A dictionary keeps the order of the findings.
        for run in dict.fromkeys(finding.run for finding in findings):
            text = "\n".join(
                sentence(finding) for finding in merge_alike([f for f in findings if f.run == run])
            )
            lines.append(f"::{level} title={_escaped(f'editbench: {run}', True)}::{_escaped(text)}")
    return lines


def merge_alike(findings: Sequence[Finding]) -> list[Finding]:
    """Merge the findings of a run that are new or not comparable for the same reason.

    After a change of a metric's version there are dozens of them.
    """
    groups: dict[tuple, list[Finding]] = {}
    for finding in findings:
        # Failures are never merged, since each is a number to look at.
        own = (finding.row,) if finding.verdict not in REPORTED else ()
        groups.setdefault((finding.run, finding.verdict, finding.text, *own), []).append(finding)
    merged = []
    for first, *others in groups.values():
        if others:
            row = f"{first.row} and {len(others)} more"
            first = Finding(first.run, row, first.verdict, first.text)
        merged.append(first)
    return merged


def _printable(text: str) -> str:
    """Replace the characters that XML does not allow."""
    return UNPRINTABLE.sub("?", text)


def _escaped(text: str, title: bool = False) -> str:
    """Escape text for a workflow command of GitHub Actions.

    Args:
        text: to escape.
        title: whether it is a property of the command, which a colon or a comma would end.
    """
    # The percent sign comes first, since the other replacements contain it.
    for char in "%\r\n" + (":," if title else ""):
        text = text.replace(char, f"%{ord(char):02X}")
    return text
