"""Measures the CPU time of commands that only look something up, against importing torch.

Commands such as `editbench list` and `editbench plan` should not import the large libraries. What
they once had to compute with them, they keep in a cache (editbench/run/answer_cache.py). Each
command runs in its own process, in one thread. For comparison, a process only imports torch,
pandas, scipy.stats and torchmetrics.

The output first gives the CPU seconds of this import. The columns of the table are:

    first      CPU seconds of the first run, with an empty cache
    then       CPU seconds of later runs, the smallest of several
    / import   `then` divided by the CPU seconds of the import

    python benchmarks/startup.py                 # about 30 CPU seconds
    python benchmarks/startup.py --repeats 1     # the smallest run

The result guards the imports of editbench/cli.py and editbench/commands.
"""

from __future__ import annotations

import argparse
import os
import tempfile

from children import counted

# Commands that only look something up.
COMMANDS = ("--version", "run --help", "list", "plan", "plan -m seed=0,1 attribute=smile,age")
LIBRARIES = "import torch, pandas, scipy.stats, torchmetrics"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        help="later runs of each command, and runs of the import (default: %(default)s)",
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        # A cache of its own, so that the first run really has to compute what it remembers.
        environ = os.environ | {"XDG_CACHE_HOME": cache, "OMP_NUM_THREADS": "1"}
        repeats = range(args.repeats)
        # Measured here and now, since a shared machine is slower at other times.
        libraries = min(counted(["-c", LIBRARIES], environ).cpu for _ in repeats)
        print(f"{LIBRARIES}: {libraries:.2f} CPU s")
        print(f"{'command':42} {'first, s':>9} {'then, s':>9} {'/ import':>9}")
        for command in COMMANDS:
            words = ["-m", "editbench", *command.split()]
            first = counted(words, environ).cpu
            then = min(counted(words, environ).cpu for _ in repeats)
            share = then / libraries
            print(f"{command:42} {first:9.2f} {then:9.2f} {share:9.2f}", flush=True)


if __name__ == "__main__":
    main()
