"""CPU time of commands that look something up, against an interpreter that imports what they do not.

Each command runs in processes of its own, the fewest CPU seconds of several count. A command asks
once what it then remembers (editbench.run.remembered): "first" is that run, on an empty cache.

    python benchmarks/startup.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile

COMMANDS = ("--version", "run --help", "list", "plan", "plan -m seed=0,1 attribute=smile,age")
LIBRARIES = "import torch, pandas, scipy.stats, torchmetrics"


def cpu_seconds(words: list[str], environ: dict[str, str]) -> float:
    """User and system time of a started process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        environ = os.environ | {"XDG_CACHE_HOME": cache, "OMP_NUM_THREADS": "1"}
        repeats = range(args.repeats)
        # In the same minutes as the commands, since a shared processor is slower at times.
        libraries = min(cpu_seconds([sys.executable, "-c", LIBRARIES], environ) for _ in repeats)
        print(f"{LIBRARIES}: {libraries:.2f} CPU s")
        print(f"{'command':42} {'first':>6} {'then':>6}  share of the libraries")
        for command in COMMANDS:
            words = [sys.executable, "-m", "editbench", *command.split()]
            first = cpu_seconds(words, environ)
            then = min(cpu_seconds(words, environ) for _ in repeats)
            print(f"{command:42} {first:6.2f} {then:6.2f}  {then / libraries:.2f}")


if __name__ == "__main__":
    main()
