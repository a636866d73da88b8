"""What kill -9 leaves behind: does the same command end with the same bytes?

    python benchmarks/kills.py --bank 12 --run 12 --sweep 6

Each trial starts a command in an empty folder, kills it and its workers at a random moment with
SIGKILL, starts the same command again and lets it end. The bank's arrays, or the metric rows of
every record, must then equal those of a command that nobody stopped. A bank is built by two
processes, a sweep runs under joblib.

The exit code is 1 where a trial did not recover.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BANK = ["bank.n=6000", "bank.shard=1000", "bank.block=200"]
WALK = ["budget=demo", "bank.n=2560", "bank.shard=1280", "starts.n=40", "engine.max_steps=10"]
# What a trial runs, and which of its files must have the same bytes in the end.
COMMANDS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "bank": (["bank", *BANK, "bank.workers=2"], ("cache/**/*.npy",)),
    "run": (
        ["run", *WALK, "method=gradctrl", "attribute=beard"],
        ("runs/*/rows.parquet", "runs/*/trajectory.parquet"),
    ),
    "sweep": (
        ["run", "-m", *WALK, "method=random,gradctrl", "attribute=beard", "hydra/launcher=joblib"],
        ("runs/*/rows.parquet", "runs/*/trajectory.parquet"),
    ),
}


def start(kind: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start the command of a trial in a process group of its own."""
    words = [*COMMANDS[kind][0], f"out={folder}/runs", f"cache={folder}/cache"]
    return subprocess.Popen(
        [sys.executable, "-m", "editbench", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def result(kind: str, folder: Path) -> dict[str, str]:
    """Name -> hash of every file that must be the same."""
    found = {}
    for pattern in COMMANDS[kind][1]:
        for path in sorted(folder.glob(pattern)):
            name = str(path.relative_to(folder))
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def undisturbed(kind: str, folder: Path) -> tuple[float, dict[str, str]]:
    """Seconds that the command takes, and what it leaves."""
    began = time.perf_counter()
    code = start(kind, folder).wait()
    if code != 0:
        raise SystemExit(f"{kind}: the command ends with {code} when nobody stops it")
    return time.perf_counter() - began, result(kind, folder)


def trial(kind: str, folder: Path, delay: float) -> tuple[bool, dict[str, str]]:
    """Kill the command after `delay` seconds, and run it again.

    Returns:
        Whether it was still running when it was killed, and what the second one leaves.
    """
    process = start(kind, folder)
    time.sleep(delay)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if start(kind, folder).wait() != 0:
        return running, {}
    return running, result(kind, folder)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for kind, count in (("bank", 12), ("run", 12), ("sweep", 6)):
        parser.add_argument(f"--{kind}", type=int, default=count, help=f"trials (default {count})")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    lost = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "state"
        for kind in COMMANDS:
            trials = getattr(arguments, kind)
            if not trials:
                continue
            seconds, expected = undisturbed(kind, folder)
            recovered = 0
            killed = 0
            for _ in range(trials):
                # Identities hold no path, but every trial has the same one all the same.
                shutil.rmtree(folder)
                delay = rng.uniform(0.2, 0.95) * seconds
                running, found = trial(kind, folder, delay)
                killed += running
                recovered += bool(found) and found == expected
            shutil.rmtree(folder)
            lost += trials - recovered
            print(
                f"{kind:5} {recovered} of {trials} recovered, {killed} killed while running "
                f"({len(expected)} files, {seconds:.1f} s undisturbed)",
                flush=True,
            )
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
