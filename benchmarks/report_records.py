"""Measures CPU time and memory of `editbench report` over the number of records.

The script copies the records of a folder, under other seeds, until there are as many as asked for.
Each report runs as a command in its own process, without figures. For comparison, the script
measures a process that only imports the libraries which a report needs.

The output first gives the CPU seconds of this import. The columns of the table are: number of
records; CPU seconds of the report; CPU milliseconds per record; CPU seconds of the report divided
by those of the import; and the peak memory of the report, MiB.

    editbench demo
    python benchmarks/report_records.py runs/demo                      # about 10 CPU seconds
    python benchmarks/report_records.py runs/demo --records 2 20     # a short run

The result guards editbench/report.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from children import counted

from editbench.base.files import SEAL, read_json, seal_folder, write_json

RECORDS = "[!.]*/status.json"  # a folder with a leading dot is not finished
# What a report imports in any case.
LIBRARIES = "import pandas, pyarrow, scipy.special, matplotlib.figure"
SEED_DISTANCE = 100  # between the seeds of a record and its copy, more than any sweep has


def fill(runs: Path, source: Path, number: int) -> None:
    """Copy records until a folder contains enough of them.

    The first copies are unchanged. Further ones have other seeds.

    Args:
        runs: folder of the copies; those that exist are kept.
        source: folder of the original records.
        number: of copies in the end.
    """
    originals = sorted(file.parent for file in source.glob(RECORDS))
    for place in range(number):
        original = originals[place % len(originals)]
        cycle = place // len(originals)
        copy = runs / f"{original.name}-{cycle}"
        if copy.exists():
            continue
        # The codes are the largest part of a record, and no report reads them.
        shutil.copytree(original, copy, ignore=shutil.ignore_patterns("codes.parquet"))
        status = read_json(copy / "status.json")
        status["seed"] = int(status["seed"]) + SEED_DISTANCE * cycle
        write_json(copy / "status.json", status)
        # The seal has the checksum of the old status.
        (copy / SEAL).unlink()
        seal_folder(copy)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of records, such as runs/demo")
    parser.add_argument(
        "--records",
        type=int,
        nargs="+",
        default=[77, 1000],
        help="numbers of records to report on (default: 77 1000)",
    )
    args = parser.parse_args()
    if not list(args.folder.glob(RECORDS)):
        parser.error(f"{args.folder} holds no record")
    libraries = counted(["-c", LIBRARIES]).cpu
    print(f"{LIBRARIES}: {libraries:.2f} CPU s")
    print(f"{'records':>8} {'CPU s':>8} {'ms per record':>14} {'/ import':>9} {'peak, MiB':>10}")
    with tempfile.TemporaryDirectory() as name:
        runs = Path(name) / "runs"
        # In ascending order, so that a folder only ever grows.
        for number in sorted(args.records):
            fill(runs, args.folder, number)
            used = counted(["-m", "editbench", "report", "--no-figures", str(runs)])
            print(
                f"{number:8} {used.cpu:8.1f} {1000 * used.cpu / number:14.0f} "
                f"{used.cpu / libraries:9.1f} {used.mib:10.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
