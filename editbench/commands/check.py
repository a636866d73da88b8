"""Compare finished runs with a baseline; exit code 1 if a number has moved."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from pathlib import Path

import pandas as pd

from editbench.base.errors import EditbenchError
from editbench.base.progress import results_console
from editbench.commands.options import CommandParser, add_config_dir, use_config_dir
from editbench.regression import (
    Baseline,
    PinnedRun,
    compare,
    describe_runs,
    pin_runs,
    read_baseline,
    surroundings,
)
from editbench.regression.compare import differences, name_methods
from editbench.regression.show import github_annotations, print_comparison, write_junit
from editbench.regression.summary import append_summary, markdown
from editbench.report.caveats import caveats
from editbench.report.load import load
from editbench.report.newest import present_source
from editbench.report.style import Style
from editbench.report.text_tables import by_name
from editbench.walk.rows import key_of, outside_interval, written_key

EXAMPLES = """examples:
  editbench check runs/demo --baseline runs/baselines/demo.json
  editbench check runs/demo --baseline runs/baselines/demo.json --junit check.xml --github --strict
  editbench check runs/smile --baseline runs/baselines/demo.json --allow-missing

A row has moved if it differs by more than its tolerance and the paired 95 % interval of the
difference, over the common starts, excludes zero.
exit code: 0 agrees; 1 moved, lost, missing, no longer done, or nothing comparable.
"""


def main(argv: list[str]) -> int:
    parser = _make_parser()
    args = parser.parse_args(argv)
    use_config_dir(args.config_dir)
    baseline = read_baseline(args.baseline)
    results = load(args.root)
    runs, notes = pin_runs(results)
    # A damaged record does not end the check: its pinned run counts as missing.
    broken = [f"unreadable: {problem.name}: {problem.reason}" for problem in results.problems]
    found = compare(baseline.runs, runs)
    # Without a run in common, every run would be missing, which is less helpful than this error.
    if not found.matched:
        raise EditbenchError(
            f"{args.baseline} is for another experiment: it pins {describe_runs(baseline.runs)}, but "
            f"{args.root} holds {'; '.join([describe_runs(runs), *broken])}"
        )
    # These notes come first, since they may explain what the table shows.
    made = note_changed_machine(baseline, surroundings(results))
    caveats_found = caveats(results, by_name(results, Style()))
    found.notes[:0] = [*broken, *notes, *note_changed_code(runs), *made, *caveats_found]
    found.notes.extend(note_wrong_intervals(results.rows))
    failures = found.failures(args.allow_missing, args.strict)
    title = f"{args.root} against {args.baseline} ({baseline.reason})"
    print_comparison(found, results_console(), args.all, title)
    if args.junit:
        write_junit(args.junit, found, failures)
    if args.github:
        print("\n".join(github_annotations(found, failures)))
        append_summary(markdown(title, found, failures))
    # Runs were found, but none of their numbers could be compared.
    if found.blind:
        print(
            f"failed: no number of {args.root} can be compared with {args.baseline}; pin these runs, "
            "or check the runs that it was made for",
            file=sys.stderr,
        )
    elif failures:
        command = shlex.join(["editbench", "baseline", str(args.root), "--out", str(args.baseline)])
        print("failed: see the rows above.", file=sys.stderr)
        # To pin the runs again would drop those that are missing.
        if any(finding.verdict == "missing" for finding in failures):
            print(
                "Run the missing jobs again, or accept that they are missing with --allow-missing.",
                file=sys.stderr,
            )
        print(
            f'If the change is intended, pin it: {command} --force --reason "..."',
            file=sys.stderr,
        )
        if made:
            print(
                "If only the machine is another one, allow for it and keep the pinned values: "
                f'{command} --widen --reason "..."',
                file=sys.stderr,
            )
    return int(bool(failures) or found.blind)


def _make_parser() -> CommandParser:
    parser = CommandParser(
        "editbench check",
        description=__doc__,
        epilog=EXAMPLES,
    )
    parser.add_argument("root", type=Path, help="runs folder")
    parser.add_argument(
        "--baseline", type=Path, required=True, help="file that `editbench baseline` wrote"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="do not fail if pinned runs are missing"
    )
    parser.add_argument("--strict", action="store_true", help="fail if numbers cannot be compared")
    parser.add_argument("--all", action="store_true", help="also show the rows that agree")
    parser.add_argument(
        "--junit", type=Path, metavar="FILE", help="write JUnit XML, one test case per row"
    )
    parser.add_argument(
        "--github",
        action="store_true",
        help="print one GitHub Actions annotation per run, and write the step summary",
    )
    add_config_dir(parser)
    return parser


def note_changed_code(runs: list[PinnedRun]) -> list[str]:
    """A note on methods whose code has changed since their records were made."""
    targets = {str(run.options.get("method._target_")) for run in runs}
    now = {target: present_source(target) for target in targets}
    changed: Counter[str] = Counter()
    for run in runs:
        present = now[str(run.options.get("method._target_"))]
        # The code is unknown for a skipped job, and for a class that is not importable here.
        if run.source and present and run.source != present:
            changed[run.method] += 1
    if not changed:
        return []
    methods = name_methods(changed, Counter(run.method for run in runs if run.source))
    return [
        f"code changed since the records were made: {methods}; this check does not test the "
        "current code of these methods until their jobs have run again"
    ]


def note_wrong_intervals(rows: pd.DataFrame) -> list[str]:
    """A note on rows whose value is outside their own interval: the metric must be wrong."""
    wrong = outside_interval(rows)
    if wrong.empty:
        return []
    first = wrong.iloc[0].to_dict()
    return [
        f"values outside their own interval: {len(wrong)} of {len(rows)} rows, such as "
        f"{written_key(key_of(first))} of {first['run_id']}, {first['value']:g} with "
        f"[{first['low']:g}, {first['high']:g}]; `editbench conform` checks the metric "
        f"{first['group']}"
    ]


def note_changed_machine(baseline: Baseline, now: dict) -> list[str]:
    """A note on versions and hardware that differ from the pinned ones.

    Args:
        baseline: whose `made_with` is compared.
        now: `surroundings` of the runs that are checked.

    Returns:
        One note, or none if all values that both have are equal. The commit is not compared.
    """
    changed = [
        words.removeprefix("packages.")
        for words in differences(baseline.made_with, now)
        # Almost every check is of another commit than the pins.
        if not words.startswith("git ")
    ]
    return (
        [f"versions or hardware differ from those of the pins: {'; '.join(changed)}"]
        if changed
        else []
    )
