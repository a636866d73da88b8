"""Measures how much longer a job takes beside programs that occupy the cores.

torch computes on several threads, which wait for one another. On a busy machine, one of them has no
core, and if the others wait in a loop, they keep theirs from it. The job runs as a command in its
own process, in turn with two settings of the GNU library of OpenMP:

    loop     (straightforward) the library's own setting: a waiting thread keeps its core
    ours     the setting of the `editbench` command: it gives its core up after some 50 microseconds

The columns are the number of busy programs beside the job, the setting, the median seconds of wall
time and CPU time of a job over all rounds, and the wall time of `loop` divided by that of the row.
Without a busy program the two should be equal. With some, the ratio depends on which threads the
system happens to put on one core, and varies from run to run. With fewer than two cores there is
nothing to measure.

    python benchmarks/busy_machine.py    # about 3 CPU minutes, the busy programs included
    python benchmarks/busy_machine.py --rounds 1 --starts 16 --busy 1     # a short run

The result guards editbench/base/threads.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from children import Used, counted

from editbench.base.threads import FEW_TURNS, TURNS
from editbench.run.compose import compose_settings
from editbench.run.loading import load_bank

# Turns of the loop by the library's own setting, if there are no more threads than cores.
LIBRARY = "300000"
SETTINGS = {"loop": LIBRARY, "ours": FEW_TURNS}
BUSY = "while True: pass"


@contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """Programs that occupy a core each, as long as the block runs."""
    programs = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def run_job(words: list[str], turns: str, folder: Path) -> Used:
    """Run a job with a folder of records of its own, and measure it.

    Args:
        words: overrides of the job.
        turns: value of the library's variable.
        folder: that does not exist yet.
    """
    environ = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environ[TURNS] = turns
    return counted(["-m", "editbench", "run", *words, f"out={folder}"], environ)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--busy",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="numbers of busy programs (default: 0 1 2)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="jobs of each kind (default: 3)")
    parser.add_argument(
        "--starts", type=int, default=400, help="starts.n of the job (default: %(default)s)"
    )
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["experiment=demo", "budget=demo", "method=interfacegan", "attribute=smile"]
        words += [
            "bank.n=6400",
            f"starts.n={args.starts}",
            "starts.pool=1",
            f"cache={folder}/cache",
        ]
        load_bank(compose_settings(words))
        # The fit is in the cache afterwards.
        run_job(words, FEW_TURNS, folder / "first")
        print(f"{'busy':>4} {'setting':>8} {'wall, s':>8} {'CPU, s':>8} {'loop / row':>11}")
        for count in args.busy:
            found: dict[str, list[Used]] = {setting: [] for setting in SETTINGS}
            with busy_programs(count):
                for k in range(args.rounds):
                    # The settings alternate, so that changes of the machine's speed affect both.
                    for setting, turns in SETTINGS.items():
                        out = folder / f"{setting}-{count}-{k}"
                        found[setting].append(run_job(words, turns, out))
            walls = {key: statistics.median(used.wall for used in found[key]) for key in found}
            for setting, every in found.items():
                cpu = statistics.median(used.cpu for used in every)
                ratio = walls["loop"] / walls[setting]
                print(f"{count:4} {setting:>8} {walls[setting]:8.2f} {cpu:8.2f} {ratio:11.2f}")
    print(f"{os.cpu_count()} cores, load of the machine before the first job: {load:.1f}")


if __name__ == "__main__":
    main()
