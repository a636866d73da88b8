"""CPU time and memory of the report over the number of records, against an import of its libraries.

Copies of the records of a folder, under other seeds, make the larger folders. Every report is of a
process of its own.

    python benchmarks/report_records.py FOLDER [--records 77 1000]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from children import counted

from editbench.base.files import SEAL, read_json, seal_folder, write_json

RECORDS = "[!.]*/status.json"
LIBRARIES = "import pandas, pyarrow, scipy.special, matplotlib.figure"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, nargs="+", default=[77, 1000])
    args = parser.parse_args()
    if not list(args.folder.glob(RECORDS)):
        parser.error(f"{args.folder} holds no record")
    libraries = counted(["-c", LIBRARIES]).cpu
    print(f"{LIBRARIES}: {libraries:.2f} CPU s")
    with tempfile.TemporaryDirectory() as name:
        runs = Path(name) / "runs"
        for number in sorted(args.records):
            fill(runs, args.folder, number)
            used = counted(["-m", "editbench", "report", "--no-figures", str(runs)])
            print(
                f"{number} records: {used.cpu:.1f} CPU s, {1000 * used.cpu / number:.0f} ms a record, "
                f"{used.cpu / libraries:.1f} times the libraries, {used.mib:.0f} MiB"
            )


def fill(runs: Path, source: Path, number: int) -> None:
    """Copy records until a folder has `number`: first as they are, then under further seeds."""
    originals = sorted(file.parent for file in source.glob(RECORDS))
    for place in range(number):
        original = originals[place % len(originals)]
        copy = runs / f"{original.name}-{place // len(originals)}"
        if copy.exists():
            continue
        # The codes are most of a record, and no report reads them.
        shutil.copytree(original, copy, ignore=shutil.ignore_patterns("codes.parquet"))
        status = read_json(copy / "status.json")
        status["seed"] = int(status["seed"]) + 100 * (place // len(originals))
        write_json(copy / "status.json", status)
        (copy / SEAL).unlink()
        seal_folder(copy)


if __name__ == "__main__":
    main()
