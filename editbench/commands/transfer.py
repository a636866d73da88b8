"""Compare the rankings of the methods in two or more worlds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd

from editbench.base.errors import EditbenchError
from editbench.base.files import explain_disk_errors, usable_folder, write_atomic
from editbench.commands.options import CommandParser
from editbench.figures.panels import STYLE
from editbench.studies.transfer import FEWEST, World, figure, rank_table, read_worlds, transfer

DPI = 150
EXAMPLES = """examples:
  editbench transfer runs/demo runs/ffhq_latents
  editbench transfer runs/demo runs/linearity_dial runs/mnist_digits --out runs/transfer

If a folder has several settings, such as a dial, each setting is a world. The command writes
transfer.csv, accuracy.csv and transfer.png.
"""


def main(argv: list[str]) -> int:
    parser = CommandParser(
        "editbench transfer",
        description=__doc__,
        epilog=EXAMPLES,
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUNS", help="runs folders")
    parser.add_argument(
        "--out",
        type=usable_folder,
        default=Path("runs/transfer"),
        help="output folder",
    )
    # Names may come before and after the options, which parse_args does not allow.
    args = parser.parse_intermixed_args(argv)
    # Read before anything is written, since a folder without runs is a common mistake.
    worlds = read_worlds(args.folders)
    if len(worlds) < 2:
        raise EditbenchError(f"{args.folders[0]} holds only one world; name a second runs folder")
    found = transfer(worlds)
    table = rank_table(worlds)
    with explain_disk_errors(args.out):
        write_atomic(args.out / "transfer.csv", found.to_csv(index=False, lineterminator="\n"))
        write_atomic(args.out / "accuracy.csv", table.to_csv(lineterminator="\n"))
        with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
            figure(worlds, found).savefig(args.out / "transfer.png", dpi=DPI)
    _print(worlds, found, table)
    print(args.out / "transfer.png")
    return 0


def _print(worlds: Sequence[World], found: pd.DataFrame, table: pd.DataFrame) -> None:
    print("mean accuracy")
    print(table.round(3).to_string(na_rep="-"))
    print("\nKendall's tau-b between worlds, with 95 % intervals over starts")
    for row in found.to_dict("records"):
        pair = f"{row['world']} and {row['other']}"
        # Two worlds may have been run with different methods.
        if row["methods"] < FEWEST:
            print(f"  {pair}: only {row['methods']} methods in common")
            continue
        if pd.isna(row["tau"]):
            print(f"  {pair}: no ranking, since all methods of one are equally accurate")
            continue
        interval = f"[{row['low']:.2f}, {row['high']:.2f}]"
        print(f"  {pair}: {row['tau']:.2f} {interval}, {row['methods']} methods")
    for world in worlds:
        attributes = ", ".join(world.tables)
        print(f"{world.name}: over {attributes}")
        for method, why in world.left_out.items():
            print(f"  not compared: {method}: {why}")
