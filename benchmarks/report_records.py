"""CPU time and memory of the report over the number of records, against an import of its libraries.

Copies of the records of a folder, under other seeds, make the larger folders. Every report is of a
process of its own.

    python benchmarks/report_records.py FOLDER [--records 77 1000]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from editbench.base.files import SEAL, read_json, seal_folder, write_json

LIBRARIES = "import pandas, pyarrow, scipy.special, matplotlib.figure"
# Runs the words of a command and prints its CPU seconds and its peak memory.
COUNTED = """
import json, resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def counted(words: list[str]) -> tuple[float, float]:
    """CPU seconds and peak memory (MiB) of a Python process with these arguments."""
    command = [sys.executable, "-c", COUNTED, sys.executable, *words]
    seconds, memory = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, nargs="+", default=[77, 1000])
    args = parser.parse_args()
    libraries, _ = counted(["-c", LIBRARIES])
    print(f"{LIBRARIES}: {libraries:.2f} CPU s")
    with tempfile.TemporaryDirectory() as name:
        runs = Path(name) / "runs"
        for number in sorted(args.records):
            fill(runs, args.folder, number)
            seconds, memory = counted(["-m", "editbench", "report", str(runs)])
            print(
                f"{number} records: {seconds:.1f} CPU s, {1000 * seconds / number:.0f} ms a record, "
                f"{seconds / libraries:.1f} times the libraries, {memory:.0f} MiB"
            )


def fill(runs: Path, source: Path, number: int) -> None:
    """Copy records until a folder has `number`: first as they are, then under further seeds."""
    originals = sorted(file.parent for file in source.glob("[!.]*/status.json"))
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
