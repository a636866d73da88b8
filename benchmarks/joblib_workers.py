"""Measures a sweep of eight jobs under joblib with two workers, against jobs one after the other.

The bank is built first. Then three sweeps of the same jobs run as commands in their own processes,
each with a copy of the cache that contains only the bank, and with its own folder of records:

    one-thread    jobs one after the other, in one thread, as each of the two workers has
    all-cores     jobs one after the other, with the number of threads that a job takes by default
    two-workers   Hydra's joblib launcher with two worker processes

The columns are CPU seconds, summed over all processes of a sweep, and seconds of wall time. The
second table divides: wall time of the sweep without workers / with two workers (above 1: workers
are faster), and CPU time with two workers / without (above 1: workers need more). The ratio of wall
times is only meaningful if two cores are idle, so the last line gives the load of the machine.

    python benchmarks/joblib_workers.py    # about 75 CPU seconds
    python benchmarks/joblib_workers.py --starts 16 --bank 640     # a short run, mostly start-up
    python benchmarks/joblib_workers.py --starts 4800 --bank 20000    # jobs of 18 s

The result guards sweeps with several workers (docs/sweeps.md).
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from children import Used, counted

from editbench.run.compose import compose_settings
from editbench.run.loading import load_bank

JOBS = ["method=sefa,random", "attribute=smile,age", "seed=0,1"]
JOB_COUNT = 8  # 2 methods x 2 attributes x 2 seeds
THREADS = "OMP_NUM_THREADS"  # environment variable: threads of a process
WORKERS = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def run_sweep(words: list[str], folder: Path, name: str, threads: int | None = None) -> Used:
    """Run a sweep with a copy of the cache, and print what it used.

    Args:
        words: overrides of the sweep, except for its jobs.
        folder: that contains the cache, and receives the records of the sweeps.
        name: of the sweep.
        threads: of each process; None means its default.

    Returns:
        What all processes of the sweep used.
    """
    environ = {key: value for key, value in os.environ.items() if key != THREADS}
    if threads is not None:
        environ[THREADS] = str(threads)
    # A copy with only the bank, so that every sweep has to make its own fits.
    cache = folder / f"cache-{name}"
    shutil.copytree(folder / "cache", cache)
    out = folder / name
    places = [f"cache={cache}", f"out={out}"]
    used = counted(["-m", "editbench", "run", "-m", *JOBS, *words, *places], environ)
    # A sweep that skipped a job would look fast.
    assert len(list(out.glob("*-s*"))) == JOB_COUNT
    print(f"{name:12} {used.cpu:8.1f} {used.wall:8.1f}", flush=True)
    return used


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--starts",
        type=int,
        default=160,
        help="starts.n of the jobs, over all attributes (default: %(default)s)",
    )
    parser.add_argument(
        "--bank", type=int, default=6400, help="samples of the bank (default: %(default)s)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["experiment=demo", "budget=demo", f"bank.n={args.bank}", f"starts.n={args.starts}"]
        # Any sample of the test split may be a start: many starts then need no large bank.
        words.append("starts.pool=1")
        # All sweeps share the bank, so it is built before the first measurement.
        load_bank(compose_settings([*words, f"cache={folder}/cache"]))
        print(f"{'sweep':12} {'CPU s':>8} {'wall s':>8}")
        one_thread = run_sweep(words, folder, "one-thread", threads=1)
        all_cores = run_sweep(words, folder, "all-cores")
        two_workers = run_sweep([*words, *WORKERS], folder, "two-workers")
    print(f"\n{'two workers against':20} {'wall ratio':>10} {'CPU ratio':>10}")
    for name, used in (("one-thread", one_thread), ("all-cores", all_cores)):
        wall = used.wall / two_workers.wall
        cpu = two_workers.cpu / used.cpu
        print(f"{name:20} {wall:10.2f} {cpu:10.3f}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
