"""What a job costs a sweep that finds its record, against composing its configuration with Hydra.

A small record is made and copied under the names of all jobs; the sweep over them then runs in a
process of its own, as from a command line. Hydra composes the configuration of every job that it
launches twice, so that is the measure: both numbers are CPU seconds a job, taken in one run.

    python benchmarks/found_jobs.py [--jobs 1000]
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

METHODS = ("random", "sefa")
SMALL = ["budget=demo", "bank.n=2560", "bank.shard=1280", "starts.n=56", "engine.sweep_steps=4"]
COMPOSED = 10  # jobs that Hydra composes for the comparison


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1000)
    # As many seeds of each method.
    jobs = parser.parse_args().jobs // len(METHODS) * len(METHODS)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "runs"
        seeds = f"seed=range({jobs // len(METHODS)})"
        places = [f"out={out}", f"cache={folder}/cache"]
        words = [f"method={','.join(METHODS)}", "attribute=smile", seeds, *SMALL, *places]
        make_records(words, out)
        used = counted(["-m", "editbench", "run", "-m", *words])
        composing = hydra_seconds(words)
    # The summary shows that no job ran.
    print(used.said)
    each = used.cpu / jobs
    print(f"{jobs} found jobs: {used.cpu:.1f} CPU s, {used.wall:.1f} s, start included")
    print(f"a found job {1000 * each:.1f} ms; Hydra composes one in {1000 * composing:.0f} ms")
    print(f"ratio of twice composing to a found job: {2 * composing / each:.1f}")


def make_records(words: list[str], out: Path) -> None:
    """Run the first job of a sweep, and copy its record under the names of the others."""
    first: Path | None = None
    for own, settings in sweep_settings(words):
        if first is None:
            first = out / run_job(settings).run_id
            continue
        # Its status tells another seed, which a sweep does not look at: the name is what counts.
        shutil.copytree(first, out / name_job(settings, own).run_id)


def hydra_seconds(words: list[str]) -> float:
    """CPU seconds in which Hydra composes one job of a sweep."""
    with hydra_application() as hydra:
        master, jobs = compose_master(hydra.config_loader, words)
        began = time.process_time()
        some = jobs[:COMPOSED]
        for job in some:
            hydra.config_loader.load_sweep_config(master, job)
        return (time.process_time() - began) / len(some)


if __name__ == "__main__":
    main()
