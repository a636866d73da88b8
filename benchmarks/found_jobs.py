"""Measures the CPU time of a sweep per job whose record already exists, against Hydra's own cost.

A sweep skips jobs whose records it finds. This script makes one small record, copies it under the
names of all jobs, and runs the sweep over them as a command in its own process. For comparison it
measures how long Hydra takes to compose the configuration of one job. Hydra composes each job that
it launches twice, so twice this time is what a sweep that leaves everything to Hydra would cost at
least.

The output has the summary of the sweep (which shows that no job ran), the CPU and wall time of the
sweep with its start, and three rows: CPU milliseconds per job that was found, CPU milliseconds of
one composition, and twice the composition divided by the job (above 1: the sweep is faster).

    python benchmarks/found_jobs.py    # about 30 CPU seconds
    python benchmarks/found_jobs.py --jobs 20    # a short run, mostly the start of the command

docs/sweeps.md names this script. The result guards large sweeps that are started again.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from children import counted

from editbench.run.compose import compose_master, sweep_settings
from editbench.run.job import run_job
from editbench.run.naming import name_job
from editbench.run.overrides import hydra_application

METHODS = ("random", "sefa")  # both are fitted in a moment
# One job runs, whose result does not matter, so it is as small as possible.
SMALL = ["budget=demo", "bank.n=2560", "bank.shard=1280", "starts.n=56", "engine.sweep_steps=4"]
COMPOSED = 10  # jobs that Hydra composes for the comparison


def make_records(words: list[str], out: Path) -> None:
    """Run the first job of a sweep, and copy its record under the names of the other jobs.

    Args:
        words: arguments of the sweep.
        out: folder of the records.
    """
    first: Path | None = None
    for own, settings in sweep_settings(words):
        if first is None:
            first = out / run_job(settings).run_id
            continue
        # The copy contains the seed of the first job. A sweep only looks at the name of the folder.
        shutil.copytree(first, out / name_job(settings, own).run_id)


def hydra_seconds(words: list[str]) -> float:
    """Measure how long Hydra takes to compose one job of a sweep, in CPU seconds.

    Args:
        words: arguments of the sweep.
    """
    # Hydra's start is not measured, because a sweep pays for it only once.
    with hydra_application() as hydra:
        master, jobs = compose_master(hydra.config_loader, words)
        composed = jobs[:COMPOSED]
        began = time.process_time()
        for job in composed:
            hydra.config_loader.load_sweep_config(master, job)
        return (time.process_time() - began) / len(composed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1000,
        help="of the sweep, rounded down to an even number (default: %(default)s)",
    )
    args = parser.parse_args()
    seeds = args.jobs // len(METHODS)
    jobs = seeds * len(METHODS)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "runs"
        words = [
            f"method={','.join(METHODS)}",
            "attribute=smile",
            f"seed=range({seeds})",
            *SMALL,
            f"out={out}",
            f"cache={folder}/cache",
        ]
        make_records(words, out)
        used = counted(["-m", "editbench", "run", "-m", *words])
        composing = hydra_seconds(words)
    # The command's summary shows that no job ran.
    print(used.said)
    found = used.cpu / jobs
    print(
        f"{jobs} found jobs: {used.cpu:.1f} CPU s, {used.wall:.1f} s of wall time, with the start"
    )
    print(f"{'a found job':<34} {1000 * found:8.1f} CPU ms")
    print(f"{'Hydra composes a job':<34} {1000 * composing:8.0f} CPU ms")
    print(f"{'twice composing / a found job':<34} {2 * composing / found:8.1f}")


if __name__ == "__main__":
    main()
