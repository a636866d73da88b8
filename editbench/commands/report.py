"""Make tables, figures and a page from the records of a runs folder, or compare two folders."""

from __future__ import annotations

import argparse
import gc
from dataclasses import replace
from pathlib import Path

from editbench.base.errors import EditbenchError
from editbench.base.files import usable_folder
from editbench.base.progress import status
from editbench.commands.options import CommandParser, add_config_dir, split_names, use_config_dir
from editbench.report import Style, every_setting, load, print_table, write_report
from editbench.report.exports import EXPORTERS, export
from editbench.report.references import FILE, cited_in

EXAMPLES = """examples:
  editbench report runs
  editbench report runs/demo --out page
  editbench report runs --table            print the table, write nothing
  editbench report runs --no-figures       the page and the tables only, faster
  editbench report runs --by-seed          one section for each seed
  editbench report runs --style paper.yaml use the settings of a file; runs/report.yaml is used by default
  editbench report runs --methods gradctrl,interfacegan,random --attributes smile,age
                                           only these, in this order
  editbench report runs --column one --font serif --digits 2
                                           figures and LaTeX tables for one column of a paper
  editbench report runs --config-dir my_conf
                                           with the titles and papers of your own options
  editbench report runs --tensorboard      write the records for TensorBoard, and no report
  editbench report --compare runs/before runs/after     compare two folders

docs/report.md has an example of a complete report.yaml.
"""
# Keys of report.yaml whose values are lists of names; they are options of the command too.
LISTS = {
    "methods": "methods to report, in this order",
    "attributes": "attributes to report, in this order",
    "columns": "columns of the tables, by their names in table.csv",
}
STYLED = ("style", *LISTS, "digits", "font", "column")  # options that only a report accepts


def main(argv: list[str]) -> int:
    parser = _make_parser()
    args = parser.parse_args(argv)
    exports = [name for name in EXPORTERS if getattr(args, name)]
    if exports and args.compare:
        parser.error(f"--compare cannot export: leave out --{exports[0]}")
    if args.table and args.out:
        parser.error("--table writes no files: leave out --out")
    styled = [name for name in STYLED if getattr(args, name) is not None]
    if styled and (exports or args.compare):
        other = "compare" if args.compare else exports[0]
        parser.error(f"--{other} takes no style options: leave out --{styled[0]}")
    use_config_dir(args.config_dir)
    if args.compare:
        if args.root is not None:
            parser.error(f"--compare takes exactly two folders; leave out {args.root}")
        return compare_folders(args)
    if exports:
        root = args.root or Path("runs")
        with status("exporting"):
            told = export(load(root).with_failures(), exports, args.out or root / "report")
        print("\n".join(told))
        return 0
    root = args.root or Path("runs")
    style = read_style(args, root)
    results = style.choose(load(root, by_seed=args.by_seed).with_failures())
    every = every_setting(results, style)
    # The table comes first, since the figures take longer.
    print_table(results, every=every, style=style)
    if not args.table:
        # Figures leave much garbage. Without freezing, the collector would search all loaded
        # objects again and again, which takes a tenth of the time.
        gc.freeze()
        try:
            with status("drawing the report"):
                page = write_report(results, every, args.out, not args.no_figures, style)
        finally:
            gc.unfreeze()
        print(f"table  {page.parent / 'table.csv'}\nreport {page}")
        missing = cited_in(results, style.folders).problem
        if missing:
            print(f"{FILE}: {missing}")
    return 0


def _make_parser() -> CommandParser:
    parser = CommandParser(
        "editbench report",
        description=__doc__,
        epilog=EXAMPLES,
    )
    # The default is the folder that `editbench run` writes to.
    parser.add_argument("root", type=Path, nargs="?", help="runs folder (default: runs)")
    parser.add_argument(
        "--compare",
        type=Path,
        nargs=2,
        metavar=("A", "B"),
        help="compare two runs folders: every number of both, and B - A with its interval",
    )
    parser.add_argument(
        "--out",
        type=usable_folder,
        help="where the report goes (default: ROOT/report; of a comparison B/report/compare)",
    )
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument(
        "--by-seed",
        action="store_true",
        help="keep seeds apart; by default they are one cell, a mean over starts and seeds",
    )
    add_config_dir(parser)
    parser.add_argument(
        "--no-figures",
        action="store_true",
        help="leave out figures/: every figure of the page as SVG, PDF and PNG, and the strips",
    )
    parser.add_argument(
        "--style",
        type=Path,
        metavar="FILE",
        help="a YAML of choices: order, titles, captions and the like (default: ROOT/report.yaml, "
        "where it is there)",
    )
    for name, what in LISTS.items():
        parser.add_argument(f"--{name}", metavar="A,B", help=what)
    parser.add_argument("--digits", help="digits after the decimal point")
    parser.add_argument("--font", help="font of figures: sans or serif")
    parser.add_argument(
        "--column", help="width of figures and LaTeX tables: one or two columns of a paper"
    )
    for name, exporter in EXPORTERS.items():
        parser.add_argument(
            f"--{name}",
            action="store_true",
            help=f"export each record as a run of {exporter.title} to ROOT/report/{name}; no report",
        )
    return parser


def read_style(args: argparse.Namespace, root: Path) -> Style:
    """The choices of the style file, overridden by those of the command line.

    Args:
        args: of the command.
        root: folder of the runs.
    """
    style = Style.read(args.style) if args.style else Style.of_runs(root)
    values: dict[str, object] = {}
    for key in LISTS:
        given = getattr(args, key)
        if given is not None:
            values[key] = split_names(given)
            if not values[key]:
                raise EditbenchError(f"--{key} is empty: give names separated by commas")
    for key in ("digits", "font", "column"):
        given = getattr(args, key)
        if given is not None:
            values[key] = int(given) if given.isdecimal() else given
    return replace(style.with_values(values, "--"), folders=tuple(args.config_dir))


def compare_folders(args: argparse.Namespace) -> int:
    """Run `editbench report --compare A B`; the exit code."""
    # Imported here, since a plain report does not need it.
    from editbench.studies.side_by_side import print_side_by_side, side_by_side, write_side_by_side

    first, second = args.compare
    found = side_by_side(first, second, args.by_seed)
    print_side_by_side(found)
    if not args.table:
        out = args.out or second / "report" / "compare"
        page = write_side_by_side(found, out, args.config_dir)
        print(f"table  {out / 'compare.csv'}\nlatex  {out / 'compare.tex'}\nreport {page}")
    return 0
