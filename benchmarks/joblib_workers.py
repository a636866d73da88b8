"""Measures a sweep of eight jobs under joblib with two workers, against jobs one after the other.

The bank is built first. Then sweeps of the same jobs run as commands in their own processes, each
with a copy of the cache that contains only the bank, and with its own folder of records:

    one-thread    jobs one after the other, in one thread, as each of the two workers has
    two-at-once   two such sweeps at the same time, which share nothing (values per sweep)
    all-cores     jobs one after the other, with the number of threads that a job takes by default
    two-workers   Hydra's joblib launcher with two worker processes

The columns are CPU seconds, summed over all processes of a sweep, and seconds of wall time. The
second table divides: wall time of the sweep without workers / with two workers (above 1: workers
are faster), and CPU time with two workers / without (above 1: workers need more). Its row
`the machine` has the same ratios for two sweeps at once: two cores share memory and caches, so no
launcher can do better. The ratio of wall times is only meaningful if two cores are idle, so the
last line gives the load of the machine.

    python benchmarks/joblib_workers.py    # about 200 CPU seconds
    python benchmarks/joblib_workers.py --starts 16 --bank 640     # a short run, mostly start-up
    python benchmarks/joblib_workers.py --starts 4800    # three times longer jobs

The result guards sweeps with several workers (docs/sweeps.md).
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from children import Used, counted

from editbench.run.compose import compose_settings
from editbench.run.loading import load_bank

JOBS = ["method=sefa,random", "attribute=smile,age", "seed=0,1"]
JOB_COUNT = 8  # 2 methods x 2 attributes x 2 seeds
THREADS = "OMP_NUM_THREADS"  # environment variable: threads of a process
WORKERS = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def run_sweep(words: list[str], folder: Path, name: str, threads: int | None = None) -> Used:
    """Run a sweep with a copy of the cache.

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
    return used


def run_two_at_once(words: list[str], folder: Path) -> Used:
    """Run the sweep twice at the same time, in one thread each.

    Returns:
        The mean of both sweeps, in CPU seconds and wall time.
    """
    with ThreadPoolExecutor(2) as pool:
        sweeps = [pool.submit(run_sweep, words, folder, f"at-once-{k}", 1) for k in (0, 1)]
        both = [sweep.result() for sweep in sweeps]
    cpu = sum(used.cpu for used in both) / 2
    wall = sum(used.wall for used in both) / 2
    return both[0]._replace(cpu=cpu, wall=wall)


def show(name: str, used: Used) -> None:
    print(f"{name:12} {used.cpu:8.1f} {used.wall:8.1f}", flush=True)


def show_ratios(name: str, wall: float, cpu: float) -> None:
    print(f"{name:20} {wall:10.2f} {cpu:10.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--starts",
        type=int,
        default=1600,
        help="starts.n of the jobs, over all attributes (default: %(default)s)",
    )
    parser.add_argument(
        "--bank", type=int, default=20000, help="samples of the bank (default: %(default)s)"
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
        show("one-thread", one_thread)
        at_once = run_two_at_once(words, folder)
        show("two-at-once", at_once)
        all_cores = run_sweep(words, folder, "all-cores")
        show("all-cores", all_cores)
        two_workers = run_sweep([*words, *WORKERS], folder, "two-workers")
        show("two-workers", two_workers)
    print(f"\n{'two workers against':20} {'wall ratio':>10} {'CPU ratio':>10}")
    for name, used in (("one-thread", one_thread), ("all-cores", all_cores)):
        show_ratios(name, used.wall / two_workers.wall, two_workers.cpu / used.cpu)
    # Twice the work in the time of both sweeps.
    show_ratios("the machine", 2 * one_thread.wall / at_once.wall, at_once.cpu / one_thread.cpu)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
