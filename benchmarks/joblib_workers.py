"""Eight jobs under joblib with two workers against the same jobs one after the other.

Both sweeps run in processes of their own, on a bank that is there and with folders of records of
their own. CPU seconds are of all processes of a sweep, so the second ratio is what the workers cost
more. Seconds compare only on two idle cores.

    python benchmarks/joblib_workers.py [--starts 160] [--bank 6400]
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from children import counted

from editbench.run.compose import compose_settings
from editbench.run.loading import load_bank

JOBS = ["method=sefa,random", "attribute=smile,age", "seed=0,1"]
WORKERS = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def sweep(words: list[str], out: Path) -> tuple[float, float]:
    """CPU seconds and seconds of a sweep."""
    used = counted(["-m", "editbench", "run", "-m", *JOBS, *words, f"out={out}"])
    assert len(list(out.glob("*-s*"))) == 8
    return used.cpu, used.wall


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
        words.append(f"cache={folder}/cache")
        load_bank(compose_settings(words))
        # Fits are made in both sweeps, as each has a copy of the cache with the bank alone.
        shutil.copytree(folder / "cache", folder / "cache2")
        one, one_wall = sweep(words, folder / "one")
        words[-1] = f"cache={folder}/cache2"
        two, two_wall = sweep([*words, *WORKERS], folder / "two")
    print(f"one after the other: {one:.1f} CPU s, {one_wall:.1f} s")
    print(f"two workers:         {two:.1f} CPU s, {two_wall:.1f} s")
    load = os.getloadavg()[0]
    print(
        f"{one_wall / two_wall:.2f}x in seconds (load {load:.1f}), {two / one:.3f}x in CPU seconds"
    )


if __name__ == "__main__":
    main()
