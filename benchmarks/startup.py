"""CPU time of commands that look something up, against an interpreter that imports what they do not.

Each command runs in processes of its own, the fewest CPU seconds of several count. A command asks
once what it then remembers (editbench.run.answer_cache): "first" is that run, on an empty cache.

    python benchmarks/startup.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import tempfile

from children import counted

COMMANDS = ("--version", "run --help", "list", "plan", "plan -m seed=0,1 attribute=smile,age")
LIBRARIES = "import torch, pandas, scipy.stats, torchmetrics"


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
        libraries = min(counted(["-c", LIBRARIES], environ).cpu for _ in repeats)
        print(f"{LIBRARIES}: {libraries:.2f} CPU s")
        print(f"{'command':42} {'first':>6} {'then':>6}  share of the libraries")
        for command in COMMANDS:
            words = ["-m", "editbench", *command.split()]
            first = counted(words, environ).cpu
            then = min(counted(words, environ).cpu for _ in repeats)
            print(f"{command:42} {first:6.2f} {then:6.2f}  {then / libraries:.2f}")


if __name__ == "__main__":
    main()
