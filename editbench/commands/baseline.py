"""Pin the numbers of finished runs, with tolerances, provenance and a reason."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from editbench.base.errors import EditbenchError
from editbench.base.progress import results_console
from editbench.commands.options import CommandParser, add_config_dir, use_config_dir
from editbench.regression import (
    Baseline,
    PinnedRun,
    compare,
    measure_tolerances,
    pin_runs,
    read_baseline,
    surroundings,
    write_baseline,
)
from editbench.regression.show import print_comparison
from editbench.report.load import Results, load

EXAMPLES = """examples:
  editbench baseline runs/demo --out runs/baselines/demo.json --reason "first pins"
  editbench baseline runs/demo --out runs/baselines/demo.json --reason "..." --spread runs/demo_batch runs/demo_seed1
  editbench baseline runs/demo --out runs/baselines/demo.json --reason "GradCtrl excludes ties exactly" --force
  editbench baseline runs/demo --out runs/baselines/demo.json --reason "also on AMD EPYC" --widen

--spread takes runs of the same jobs with another engine.batch, OMP_NUM_THREADS or seed. The
tolerance of a row is then twice their largest deviation from the pinned value, but at least what
the other rows of the same metric show, and a fifth of the default tolerance, which comes from the
row's value and interval. Vary what may differ where the check will run. Other seeds widen the
tolerances to the noise of a fit, which can hide small bugs from a check at the pinned seed
(docs/regression.md).

--widen keeps the pinned values of an existing baseline, and allows for the deviations of these runs
too. Use it where a check fails although only the machine is another one.
"""


def main(argv: list[str]) -> int:
    parser = _make_parser()
    args = parser.parse_args(argv)
    use_config_dir(args.config_dir)
    # argparse requires the option but accepts an empty text.
    if not args.reason.strip():
        raise EditbenchError(
            '--reason is empty: say why these numbers are pinned, as in --reason "first pins"'
        )
    out = results_console()
    if args.widen:
        widen_tolerances(args, out)
    else:
        pin(args, out)
    print(f"baseline {args.out}")
    return 0


def pin(args: argparse.Namespace, out: Console) -> None:
    """Write a new baseline, or with --force replace one.

    Args:
        args: of the command.
        out: console for the comparison with an earlier baseline, and for the tolerances.

    Raises:
        EditbenchError: there is a baseline and --force is not given, or a record is not readable.
    """
    results = load_all_readable(args.root)
    runs, notes = pin_runs(results)
    spreads, own = read_spreads(args.spread, args.root)
    runs, spread = measure_tolerances(runs, spreads, own)
    for note in notes:
        out.print(f"note: {note}", style="dim", soft_wrap=True, markup=False)
    history: list[str] = []
    if args.out.exists():
        old = read_baseline(args.out)
        # The file keeps the reasons of all earlier pins, the oldest first.
        history = [*old.history, old.reason]
        # Shown before the error, so that the user sees what --force would replace.
        print_comparison(compare(old.runs, runs), out, title=f"against {args.out} ({old.reason})")
        if not args.force:
            raise EditbenchError(
                f"{args.out} already exists; the table shows how these runs differ from it. --force "
                "replaces it and keeps its reasons"
            )
        # Otherwise the user would not notice that defaults replace measured tolerances.
        if old.spread and not spread:
            out.print(
                "note: the old tolerances were measured, but the new ones are defaults; to measure "
                "them again, name the runs with --spread",
                style="dim",
                soft_wrap=True,
            )
    write_baseline(
        args.out, Baseline(runs, args.reason.strip(), history, surroundings(results), spread)
    )
    print_pins(runs, spread, out)


def _make_parser() -> CommandParser:
    parser = CommandParser(
        "editbench baseline",
        description=__doc__,
        epilog=EXAMPLES,
    )
    parser.add_argument("root", type=Path, help="runs folder")
    parser.add_argument(
        "--out", type=Path, required=True, help="the baseline file, runs/baselines/NAME.json"
    )
    parser.add_argument(
        "--reason", required=True, help="why these numbers are pinned; kept in the file"
    )
    parser.add_argument(
        "--spread",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUNS",
        help="folders with runs of the same jobs, to measure tolerances",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--force", action="store_true", help="replace an existing baseline, keeping its reasons"
    )
    existing.add_argument(
        "--widen",
        action="store_true",
        help="keep the pinned values of an existing baseline, and widen its tolerances by these runs",
    )
    add_config_dir(parser)
    return parser


def widen_tolerances(args: argparse.Namespace, out: Console) -> None:
    """Widen the tolerances of an existing baseline by the deviations of other runs.

    Args:
        args: of the command: the baseline, the folders with the other runs, and the reason.
        out: console for the tolerances.

    Raises:
        EditbenchError: the tolerances were already measured with a folder of the same name.
    """
    old = read_baseline(args.out)
    spreads, _ = read_spreads([args.root, *args.spread], args.out)
    for name in sorted(spreads.keys() & old.spread.keys()):
        raise EditbenchError(
            f"the tolerances of {args.out} were measured by a folder of the name '{name}' before, "
            "and the file stores only names: rename the new one"
        )
    runs, spread = measure_tolerances(old.runs, spreads)
    widened = replace(
        old,
        runs=runs,
        reason=args.reason.strip(),
        history=[*old.history, old.reason],
        spread=old.spread | spread,
    )
    write_baseline(args.out, widened)
    print_pins(runs, spread, out)


def load_all_readable(root: Path, newest: bool = True) -> Results:
    """Load the records of a folder. Pins must not silently lack the records that are damaged.

    Args:
        root: the folder.
        newest: whether to read only one record of each job.

    Raises:
        EditbenchError: a record is not readable.
    """
    results = load(root, newest=newest)
    if results.problems:
        named = "; ".join(f"{problem.name} ({problem.reason})" for problem in results.problems)
        raise EditbenchError(
            f"some records of '{root}' are not readable: {named}. Run these jobs again, or delete "
            "their folders"
        )
    return results


def read_spreads(paths: list[Path], root: Path) -> tuple[dict[str, list[PinnedRun]], str]:
    """Read the runs that tolerances are measured with.

    Args:
        paths: their folders. The pinned folder may be one of them, because of its other seeds.
        root: the pinned folder.

    Returns:
        Name of a folder -> its runs, and the name of the pinned folder; '' if it is not one of
        them.

    Raises:
        EditbenchError: two folders have one name, or a record is not readable.
    """
    found: dict[str, list[PinnedRun]] = {}
    own = ""
    for path in paths:
        # The file stores only the name, since a path has no meaning on another machine. Resolved,
        # because the name of '.' is empty.
        name = path.resolve().name
        if name in found:
            raise EditbenchError(
                f"two folders of --spread have the same name ({name}), and the file stores only "
                "names: rename one"
            )
        # All records of a job, since those that differ in an option show the spread.
        found[name] = pin_runs(load_all_readable(path, newest=False), every=True)[0]
        if path.resolve() == root.resolve():
            own = name
    return found, own


def print_pins(runs: list, spread: dict, out: Console) -> None:
    """Print the number of pins, the origins of their tolerances, and the runs that are not done.

    Args:
        runs: the pinned runs.
        spread: folder -> the number of runs, and what was varied, see `measure_tolerances`.
        out: console for results; runs that are not done are printed to stderr.
    """
    origins = [pin.origin for run in runs for pin in run.rows.values()]
    counts = ", ".join(
        f"{origins.count(name)} {words}"
        for name, words in (
            ("spread", "measured"),
            ("scale", "at the scale of the metric"),
            ("floor", "at the minimum"),
            ("default", "default"),
        )
        if name in origins
    )
    out.print(
        f"{len(runs)} runs, {len(origins)} rows; tolerances: {counts or 'none'}", highlight=False
    )
    for name, about in spread.items():
        varied = "; ".join(f"{key} {', '.join(values)}" for key, values in about["varied"].items())
        out.print(
            f"{name}: {about['runs']} runs, varied: {varied or 'nothing'}",
            soft_wrap=True,
            # The name of a folder may contain brackets.
            markup=False,
            highlight=False,
        )
    # Jobs that were skipped or failed are pinned as such, which the user may not have intended.
    for run in runs:
        if run.status != "done":
            print(f"pinned as {run.status}: {run.label}: {run.reason}", file=sys.stderr)
