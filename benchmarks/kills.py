"""Tests whether commands recover from SIGKILL, and then give the same bytes as without a kill.

Each trial starts a command in an empty folder, kills it and its workers with SIGKILL at a random
moment, starts the same command again, and lets it finish. Then the results must have the same
SHA-256 as those of a command that nobody killed. There are three commands:

    bank    builds a bank with two processes; the arrays of the bank are compared
    run     runs one job; the rows of the metrics and the trajectory are compared
    sweep   runs two jobs under joblib; the same files of both records are compared

The output has one row per command. The columns are: trials that recovered; trials; trials in which
the command was still running when it was killed; files that are compared; seconds of wall time of
the command without a kill. The exit code is 1 if a trial did not recover, otherwise 0.

    python benchmarks/kills.py                                # 30 trials, about 10 CPU minutes
    python benchmarks/kills.py --bank 1 --run 1 --sweep 1     # the smallest run of all commands

The result guards the atomic writes and locks of banks, fits and records.
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Small banks and walks, which nevertheless run long enough to be killed in the middle.
BANK = ["bank.n=6000", "bank.shard=1000", "bank.block=200"]
WALK = ["budget=demo", "bank.n=2560", "bank.shard=1280", "starts.n=40", "engine.max_steps=10"]
RECORD_FILES = ("runs/*/rows.parquet", "runs/*/trajectory.parquet")
# The kill comes after a random share of the time that the command takes without one.
EARLIEST = 0.2
LATEST = 0.95


@dataclass(frozen=True)
class Command:
    """A command that is killed.

    Attributes:
        words: arguments of editbench.
        files: patterns of the files that must have the same bytes in the end.
        trials: default number of trials.
    """

    words: list[str]
    files: tuple[str, ...]
    trials: int


COMMANDS = {
    "bank": Command(["bank", *BANK, "bank.workers=2"], ("cache/**/*.npy",), 12),
    "run": Command(["run", *WALK, "method=gradctrl", "attribute=beard"], RECORD_FILES, 12),
    "sweep": Command(
        ["run", "-m", *WALK, "method=random,gradctrl", "attribute=beard", "hydra/launcher=joblib"],
        RECORD_FILES,
        6,
    ),
}


def start(command: Command, folder: Path) -> subprocess.Popen[bytes]:
    """Start a command in its own process group, so that it can be killed with its workers."""
    words = [*command.words, f"out={folder}/runs", f"cache={folder}/cache"]
    return subprocess.Popen(
        [sys.executable, "-m", "editbench", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def hash_results(command: Command, folder: Path) -> dict[str, str]:
    """Hash the files that must be the same: name -> SHA-256."""
    found = {}
    for pattern in command.files:
        for path in sorted(folder.glob(pattern)):
            name = str(path.relative_to(folder))
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def run_without_kill(command: Command, folder: Path) -> tuple[float, dict[str, str]]:
    """Run a command to its end.

    Returns:
        Seconds of wall time, and the hashes of the results.

    Raises:
        SystemExit: the command failed.
    """
    began = time.perf_counter()
    code = start(command, folder).wait()
    if code != 0:
        words = " ".join(command.words)
        raise SystemExit(f"editbench {words}: exit code {code}, although it was not killed")
    return time.perf_counter() - began, hash_results(command, folder)


def run_with_kill(command: Command, folder: Path, delay: float) -> tuple[bool, dict[str, str]]:
    """Kill a command, and run it again.

    Args:
        command: to be killed.
        folder: of its files, which does not exist yet.
        delay: from the start to the kill, seconds.

    Returns:
        Whether the command was still running when it was killed, and the hashes of the results of
        the second run; no hashes if the second run failed.
    """
    process = start(command, folder)
    time.sleep(delay)
    running = process.poll() is None
    # The workers are in the same process group.
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if start(command, folder).wait() != 0:
        return running, {}
    return running, hash_results(command, folder)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, command in COMMANDS.items():
        parser.add_argument(
            f"--{name}",
            type=int,
            default=command.trials,
            help=f"trials of the command `{name}`; 0 leaves it out (default: %(default)s)",
        )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the random moments (default: %(default)s)"
    )
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    lost = 0
    print(f"{'command':8} {'recovered':>9} {'trials':>7} {'killed':>7} {'files':>6} {'seconds':>8}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "state"
        # The commands share the random numbers, so leaving one out changes the moments of others.
        for name, command in COMMANDS.items():
            trials = getattr(arguments, name)
            if not trials:
                continue
            seconds, expected = run_without_kill(command, folder)
            recovered = 0
            killed = 0
            for _ in range(trials):
                # All trials use the same folder, in case a result contained its path.
                shutil.rmtree(folder)
                delay = rng.uniform(EARLIEST, LATEST) * seconds
                running, found = run_with_kill(command, folder, delay)
                killed += running
                # A second run that failed has no hashes.
                recovered += bool(found) and found == expected
            shutil.rmtree(folder)
            lost += trials - recovered
            print(
                f"{name:8} {recovered:9} {trials:7} {killed:7} {len(expected):6} {seconds:8.1f}",
                flush=True,
            )
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
