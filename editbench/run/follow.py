"""Progress of a sweep: a line as each job ends, with an estimate of the remaining time."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from editbench.base.errors import BadFile
from editbench.base.files import read_json
from editbench.base.progress import print_message, time_left
from editbench.run.job_names import full_title

LOOK_EVERY = 0.5  # seconds between two looks at the folder of a sweep
# Share of the jobs after which the remaining time is shown. The first jobs take longer, since they
# compute the fits that later jobs find.
PACE_KNOWN = 0.05


def outcome_numbers(folder: Path) -> list[int]:
    """Numbers of the jobs of a sweep that have left an outcome, in order."""
    # Other names belong to files that are still being written, or to a user's Hydra callbacks.
    return sorted(int(file.stem) for file in folder.glob("*.json") if file.stem.isdecimal())


class Pace:
    """Counts jobs as they end, and estimates from their durations how long the others will take.

    Each job measures its own duration. The time for a bank, which all jobs share, is no part of it.

    Args:
        count: total number of jobs.
        at_once: number of jobs that run at the same time; None if it is unknown, since they run on
            other machines. The jobs that have ended then show how many did.
    """

    def __init__(self, count: int, at_once: int | None = 1) -> None:
        self.count = count
        self.at_once = at_once
        self.ended = 0
        self.done: list[float] = []  # seconds of the jobs that the estimate is based on
        self.busy = 0.0  # seconds of all jobs together
        self.began = math.inf  # when the first job began

    def mark(self, status: str, reused: bool, seconds: float) -> str:
        """Count a job that has just ended, and return its place, such as '[3/12]'.

        Args:
            status: of its outcome. A job that was skipped or failed may have ended at once, so only
                those that were done tell how long a job takes.
            reused: whether its record was found, which takes no time.
            seconds: its duration.
        """
        self.ended += 1
        if not reused:
            self.busy += seconds
            self.began = min(self.began, time.monotonic() - seconds)
            if status == "done":
                self.done.append(seconds)
        return f"[{self.ended}/{self.count}]"

    def left(self) -> str:
        """Text such as ' (about 4 min left)'; '' if nothing is known or left."""
        remaining = self.count - self.ended
        if not remaining or not sum(self.done) or self.ended < PACE_KNOWN * self.count:
            return ""
        # Seconds of all remaining jobs together.
        work = sum(self.done) / len(self.done) * remaining
        if self.at_once is not None:
            return f" ({time_left(work / self.at_once)})"
        elapsed = time.monotonic() - self.began
        return f" ({time_left(work * elapsed / self.busy)})"


class Follower:
    """Prints a line as each job of a sweep ends, from the outcome files in the sweep's folder.

    The lines are therefore the same for every launcher and machine, and they come from one process,
    so they do not mix.

    Args:
        folder: where the jobs write their outcomes.
        own: for each job, the words that its title lacks; see `editbench.run.job_names`.
        at_once: number of jobs that run at the same time, as of `Pace`.
    """

    def __init__(self, folder: Path, own: Sequence[Sequence[str]], at_once: int | None = 1) -> None:
        self.folder = folder
        self.own = own
        self.pace = Pace(len(own), at_once)
        self._seen: set[int] = set()
        # A job of this process and the polling thread may look at the same time.
        self._lock = threading.Lock()

    def print_new_outcomes(self) -> None:
        """Print the jobs that have ended since the last call."""
        with self._lock:
            for number in outcome_numbers(self.folder):
                self._print(number)

    def print_outcome(self, number: int) -> None:
        """Print one job that has ended.

        In a sweep of thousands of jobs, listing the whole folder for each job would take longer
        than finding the job's record.
        """
        with self._lock:
            self._print(number)

    def _print(self, number: int) -> None:
        if number in self._seen:
            return
        self._seen.add(number)
        try:
            outcome = read_json(self.folder / f"{number}.json")
        except BadFile:
            return  # the summary names it
        mark = self.pace.mark(outcome["status"], outcome["reused"], outcome["seconds"])
        title = full_title(outcome["job"], self.own[number])
        print_message(f"{mark} {title}: {outcome['told']}{self.pace.left()}")

    @contextmanager
    def polling(self) -> Iterator[None]:
        """Check the folder regularly while other processes work."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(LOOK_EVERY):
                self.print_new_outcomes()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.print_new_outcomes()
