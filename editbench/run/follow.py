"""Progress of a sweep: a line as each job ends, with an estimate of the remaining time."""

from __future__ import annotations

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
    """Counts jobs as they end, and estimates from their pace how long the others will take.

    Args:
        count: total number of jobs.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.ended = 0
        self.worked = 0  # jobs that ran; finding an existing record takes no time
        self.began = time.monotonic()

    def mark(self, reused: bool) -> str:
        """Count a job and return its place, such as '[3/12]'."""
        self.ended += 1
        self.worked += not reused
        return f"[{self.ended}/{self.count}]"

    def left(self) -> str:
        """Text such as ' (about 4 min left)'; '' if nothing is known or left."""
        remaining = self.count - self.ended
        if not remaining or not self.worked or self.ended < PACE_KNOWN * self.count:
            return ""
        seconds = (time.monotonic() - self.began) / self.worked * remaining
        return f" ({time_left(seconds)})"


class Follower:
    """Prints a line as each job of a sweep ends, from the outcome files in the sweep's folder.

    The lines are therefore the same for every launcher and machine, and they come from one process,
    so they do not mix.

    Args:
        folder: where the jobs write their outcomes.
        own: for each job, the words that its title lacks; see `editbench.run.job_names`.
    """

    def __init__(self, folder: Path, own: Sequence[Sequence[str]]) -> None:
        self.folder = folder
        self.own = own
        self.pace = Pace(len(own))
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
        mark = self.pace.mark(outcome["reused"])
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
