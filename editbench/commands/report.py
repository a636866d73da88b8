"""`editbench report`: tables, figures and the page from the records of a runs folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from editbench.base.progress import status
from editbench.base.user_code import search_configuration
from editbench.commands.run import add_config_dir
from editbench.report import load, print_table, report

EXAMPLES = """examples:
  editbench report runs
  editbench report runs/demo --out page
  editbench report runs --table            print the table, write nothing
  editbench report runs --by-seed          a section for each seed
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "editbench report",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # The folder that `editbench run` writes to where `out` is not set.
    parser.add_argument(
        "root", type=Path, nargs="?", default=Path("runs"), help="runs folder (default: runs)"
    )
    parser.add_argument("--out", type=Path, help="where the report goes (default: ROOT/report)")
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument(
        "--by-seed",
        action="store_true",
        help="keep seeds apart; by default they are one cell, a mean over starts and seeds",
    )
    add_config_dir(parser)
    args = parser.parse_args(argv)
    search_configuration(args.config_dir)  # the figures of a user's own metrics
    # The table first: the figures take longer.
    print_table(load(args.root, by_seed=args.by_seed))
    if not args.table:
        with status("drawing the report"):
            page = report(args.root, args.out, by_seed=args.by_seed)
        print(f"table  {page.parent / 'table.csv'}\nreport {page}")
    return 0
