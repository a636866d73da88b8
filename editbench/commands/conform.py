"""Check an editor or a metric of your own against its contract, which is documented in
editbench.walk.editor or editbench.walk.metric.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from editbench.base.errors import UnknownName
from editbench.base.progress import results_console, status
from editbench.commands.options import CommandParser, add_config_dir, split_names

if TYPE_CHECKING:
    from editbench.conformance.suite import Check
    from editbench.conformance.verdicts import CheckResult

EXAMPLES = """examples:
  editbench conform mean_difference.py                       the one editor of a file, with its default arguments
  editbench conform mine.py:Second --set delta=0.3           one of several, with a constructor argument
  editbench conform my_package.my_module.MyEditor            by its dotted name
  editbench conform my_conf/method/mine.yaml                 as a job would construct it
  editbench conform mine --config-dir my_conf                the same, by its name
  editbench conform my_metric.py                             a metric, with its figure if the file has `draw`
  editbench conform mine.py --only batch,state               two checks
  editbench conform --list                                   the checks and what they mean

exit code: 0 nothing failed, 1 a check failed, 2 nothing to check (no such file, or not one class)
"""
COLOURS = {"passed": "green", "failed": "bold red", "skipped": "dim", "warned": "yellow"}


def main(argv: list[str]) -> int:
    parser = CommandParser(
        "editbench conform",
        description=__doc__,
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "target",
        metavar="editor|metric",
        nargs="?",
        help="FILE.py, FILE.py:CLASS, package.module.CLASS, FILE.yaml or the name of an option",
    )
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a constructor argument, or a key of the YAML; may be given several times",
    )
    parser.add_argument("--only", default="", metavar="CHECK,CHECK", help="run only these checks")
    parser.add_argument("--list", action="store_true", help="show the checks with their meaning")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    add_config_dir(parser)
    args = parser.parse_args(argv)

    # Imported here, since it imports torch, which --help does not need.
    from editbench.conformance import CHECKS, METRIC_CHECKS, conform, conform_metric
    from editbench.conformance.load import METRIC, WrongUsage, load_factory

    if args.list:
        print_checks({"editor": CHECKS.values(), "metric": METRIC_CHECKS.values()}, args.json)
        return 0
    if args.target is None:
        parser.error("name an editor or a metric: FILE.py, FILE.py:CLASS or FILE.yaml")
    try:
        make = load_factory(args.target, args.settings, args.config_dir)
        only = split_names(args.only)
        with status(f"checking {args.target}"):
            if make.kind == METRIC:
                results = conform_metric(make, only, make.figure)
            else:
                results = conform(make, only)
    # Another exit code than for a failed check, since nothing was checked.
    except (WrongUsage, UnknownName) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
    else:
        print_results(results)
    return 1 if any(result.status == "failed" for result in results) else 0


def make_table(*titles: str) -> Table:
    """An empty table with these columns."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, no_wrap=title in ("check", "result"), overflow="fold")
    return table


def print_checks(suites: Mapping[str, Iterable[Check]], as_json: bool) -> None:
    """Print the checks with their meanings.

    Args:
        suites: kind of object, such as 'editor' -> its checks.
        as_json: whether to print a JSON list instead of a table.
    """
    rows = []
    for kind, checks in suites.items():
        for check in checks:
            rows.append(
                {"of": kind, "name": check.name, "meaning": check.meaning, "member": check.place}
            )
    if as_json:
        # Not through the console, which would wrap long lines.
        print(json.dumps(rows, indent=1))
        return
    table = make_table("of", "check", "what it means", "contract")
    for row in rows:
        table.add_row(row["of"], row["name"], escape(row["meaning"]), row["member"])
    results_console().print(table)


def shared_parts(result: CheckResult) -> tuple[str, str]:
    """The parts of a message that several checks may share: what was found, and the fix."""
    found, _, rest = result.message.partition("\nRequired: ")
    fix = rest.partition("\nFix: ")[2].partition("\nSee ")[0]
    return found, f"Fix: {fix}"


def print_results(results: Sequence[CheckResult]) -> None:
    """Print the table of results, then the messages of failures, then the counts."""
    table = make_table("check", "result", "remark")
    console = results_console()
    for result in results:
        # The message of a failure is long, so it is printed below the table.
        remark = result.meaning if result.status in ("failed", "warned") else result.message
        colour = COLOURS[result.status]
        # Messages contain brackets, which rich would read as markup.
        table.add_row(result.name, f"[{colour}]{result.status}[/{colour}]", escape(remark))
    console.print(table)
    # An error in code that every check calls fails most of them, and is printed once.
    alike: dict[tuple[str, ...], list[CheckResult]] = {}
    for result in results:
        if result.status in ("failed", "warned"):
            alike.setdefault((result.status, *shared_parts(result)), []).append(result)
    for (status_, *told), group in alike.items():
        message = "\n".join(told) if len(group) > 1 else group[0].message
        names = ", ".join(result.name for result in group)
        colour = COLOURS[status_]
        console.print(
            f"\n[{colour}]{names} {status_}[/{colour}]\n{escape(message)}", highlight=False
        )
    counts = [f"{n} {name}" for name in COLOURS if (n := sum(r.status == name for r in results))]
    console.print(f"\n{len(results)} checks: " + ", ".join(counts), highlight=False)
