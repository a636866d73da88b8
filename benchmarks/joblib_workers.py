"""Eight jobs under joblib with two workers against the same jobs one after the other.

The sweeps run in processes of their own, on a bank that is there and with folders of records of
their own. One after the other, jobs have one thread, as each of the two workers has, and then a
thread a core, which is what one job alone takes. CPU seconds are of all processes of a sweep, so
that ratio is what the workers cost more. Seconds compare only on two idle cores.

    python benchmarks/joblib_workers.py [--starts 160] [--bank 6400]
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
THREADS = "OMP_NUM_THREADS"
WORKERS = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def sweep(words: list[str], folder: Path, name: str, threads: int | None = None) -> Used:
    """What a sweep takes, with a copy of the cache that has the bank alone.

    Args:
        words: of the sweep, beside its jobs.
        folder: of the cache, and of what the sweeps write.
        name: of the sweep.
        threads: of a process; None: what a process takes by itself.
    """
    environ = {key: value for key, value in os.environ.items() if key != THREADS}
    if threads is not None:
        environ[THREADS] = str(threads)
    cache = folder / f"cache-{name}"
    shutil.copytree(folder / "cache", cache)
    out = folder / name
    places = [f"cache={cache}", f"out={out}"]
    used = counted(["-m", "editbench", "run", "-m", *JOBS, *words, *places], environ)
    assert len(list(out.glob("*-s*"))) == 8
    print(f"{name:12} {used.cpu:6.1f} CPU s {used.wall:6.1f} s", flush=True)
    return used


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=160)
    parser.add_argument("--bank", type=int, default=6400, help="samples of the bank")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["experiment=demo", "budget=demo", f"bank.n={args.bank}", f"starts.n={args.starts}"]
        load_bank(compose_settings([*words, f"cache={folder}/cache"]))
        one = sweep(words, folder, "one-thread", threads=1)
        all_cores = sweep(words, folder, "all-cores")
        two = sweep([*words, *WORKERS], folder, "two-workers")
    for name, used in (("one thread", one), ("a thread a core", all_cores)):
        print(
            f"against one after the other with {name}: {used.wall / two.wall:.2f}x in seconds, "
            f"{two.cpu / used.cpu:.3f}x in CPU seconds"
        )
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
