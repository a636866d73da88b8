"""Waiting for the jobs of submitit, on a SLURM cluster or as processes of this machine.

Hydra's submitit launcher stops at the first job that left no result, while others still run. It
learns of such a job only from SLURM's accounting, which many clusters do not have. Here a job is
over when its result exists or when it is no longer in the queue.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import submitit
from hydra.core.utils import JobReturn, JobStatus
from submitit.core.utils import FailedJobError, UncompletedJobError

from editbench.base.errors import EditbenchError
from editbench.base.progress import print_message

SLURM = "slurm"  # submitit's name of the cluster
TOOLS = ("sbatch", "srun", "squeue")
QUEUE = ("squeue", "--me", "--array", "--noheader", "--states=all", "--format=%i %T")
RUNNING = "RUNNING"
GONE = "no longer there"  # SLURM forgets jobs some minutes after their end (MinJobAge)
ENDED = {
    GONE,
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
}
LOOK_EVERY = 1.0  # seconds between two looks for results
ASK_FIRST = 2.0  # seconds between two queries of the queue at first ...
ASK_MOST = 60.0  # ... and later, since a cluster has one controller for all users
NOISE = ("srun: ", "submitit ")  # log lines with these prefixes do not give the reason of a failure
GRACE = 15.0  # seconds that a result may take to appear on a shared file system


# -- the queue -----------------------------------------------------------------------------------
def check_slurm(options: Mapping[str, Any]) -> None:
    """Check that jobs can be sent to SLURM.

    Args:
        options: of hydra.launcher.

    Raises:
        EditbenchError: SLURM's commands are absent, its controller does not answer, or the options
            leave a job no time.
    """
    minutes = options["timeout_min"]
    warning = options["signal_delay_s"]
    if 60 * minutes <= warning:
        raise EditbenchError(
            f"hydra.launcher.timeout_min={minutes} leaves a job no time: it is stopped "
            f"hydra.launcher.signal_delay_s={warning} seconds before its end; raise the former or "
            "lower the latter"
        )
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        raise EditbenchError(
            f"hydra/launcher=submitit_slurm needs {', '.join(missing)}, not found on PATH: start "
            "the sweep where the cluster takes jobs, such as on its login node"
        )
    try:
        job_states()
    except (OSError, subprocess.SubprocessError) as error:
        raise EditbenchError(
            f"hydra/launcher=submitit_slurm: the queue cannot be read: {_reason(error)}; "
            f"`{' '.join(QUEUE[:2])}` must answer"
        ) from error


def job_states() -> dict[str, str]:
    """State of every job of this user that SLURM knows, by its id ('12', or '12_3' in an array).

    Raises:
        OSError: squeue cannot be started.
        subprocess.SubprocessError: squeue failed or did not answer.
    """
    answer = subprocess.run(
        QUEUE, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=120
    )
    states: dict[str, str] = {}
    for line in answer.stdout.splitlines():
        job, _, state = line.strip().partition(" ")
        states[job] = state
    return states


def _reason(error: Exception) -> str:
    """The last line of a command's output or, without output, of the error."""
    said = getattr(error, "stderr", None)
    # If the command timed out, Python keeps its output as bytes, or not at all.
    text = said if isinstance(said, str) and said.strip() else str(error)
    return text.strip().splitlines()[-1]


# -- waiting -------------------------------------------------------------------------------------
class SubmittedJobs:
    """The jobs that a sweep submitted, batch by batch, and how they ended.

    Args:
        cluster: submitit's name of where they run: 'slurm' or 'local'.
    """

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.jobs: list[submitit.Job[Any]] = []
        self._waiting: list[submitit.Job[Any]] = []  # jobs that are not over
        self._states: dict[str, str] = {}  # job -> its state at the last query of the queue
        self._ended: dict[str, float] = {}  # job without a result -> when it was seen to have ended
        self._ask_every = ASK_FIRST
        self._asked = float("-inf")

    @contextmanager
    def waiting_executor(self) -> Iterator[None]:
        """Make Hydra's submitit launchers wait for every job, even if others fail."""
        submitted = self

        class Executor(submitit.AutoExecutor):
            def map_array(self, fn: Callable[..., Any], *iterable: Any) -> list[Any]:
                count = submitted.run(lambda: super(Executor, self).map_array(fn, *iterable))
                # The sweep reads what the jobs left in its folder.
                return [_Ended()] * count

        # The launchers look the class up under this name when they launch.
        theirs = submitit.AutoExecutor
        submitit.AutoExecutor = Executor  # type: ignore[misc]
        try:
            yield
        finally:
            submitit.AutoExecutor = theirs  # type: ignore[misc]

    def run(self, submit: Callable[[], Sequence[submitit.Job[Any]]]) -> int:
        """Submit a batch of jobs and wait until all are over.

        Args:
            submit: submits the batch.

        Returns:
            The number of jobs.

        Raises:
            EditbenchError: the cluster rejects the jobs.
        """
        try:
            jobs = submit()
        except FailedJobError as error:  # of sbatch
            raise EditbenchError(
                f"SLURM refused the jobs: {_reason(error)} (see the keys of hydra.launcher; if an "
                "array is too large, set hydra.sweeper.max_batch_size)"
            ) from error
        self.jobs += jobs
        self._waiting += jobs
        self._ask_every = ASK_FIRST
        if self.cluster == SLURM:
            number = _array(jobs[0])
            print_message(f"submitted to SLURM as job {number}; `squeue --job {number}` shows it")
        while self._waiting:
            time.sleep(LOOK_EVERY)
            self._poll_queue()
            self._drop_finished()
        return len(jobs)

    def _poll_queue(self) -> None:
        """Query the queue from time to time for jobs that have ended."""
        now = time.monotonic()
        if now - self._asked < self._ask_every:
            return
        self._asked = now
        self._ask_every = min(ASK_MOST, self._ask_every * 1.5)
        for job, state in self._current_states():
            if state not in ENDED:
                self._states[job] = state
                # It had only left the queue to be queued again.
                self._ended.pop(job, None)
            elif job not in self._ended:
                self._states[job] = state
                self._ended[job] = now
                self._ask_every = ASK_FIRST  # to notice a requeue before it counts as lost

    def _current_states(self) -> list[tuple[str, str]]:
        """Ids and states of the jobs that are not over; empty while SLURM does not answer."""
        if self.cluster != SLURM:
            return [(job.job_id, GONE if job.done() else RUNNING) for job in self._waiting]
        try:
            states = job_states()
        except (OSError, subprocess.SubprocessError) as error:
            # A controller that is being restarted knows its jobs again afterwards.
            print_message(f"SLURM does not answer and is asked again: {_reason(error)}")
            return []
        return [(job.job_id, states.get(job.job_id, GONE)) for job in self._waiting]

    def _drop_finished(self) -> None:
        """Stop waiting for jobs that left a result or are lost; print a line for each lost one."""
        now = time.monotonic()
        waiting: list[submitit.Job[Any]] = []
        for job in self._waiting:
            ended = self._ended.get(job.job_id)
            if ended is not None:
                # A network file system may show an outdated folder until it is touched.
                with suppress(OSError):
                    job.paths.folder.chmod(job.paths.folder.stat().st_mode)
            if job.paths.result_pickle.exists():
                continue
            if ended is None or now - ended < GRACE:
                waiting.append(job)
            else:
                print_message(f"lost: job {job.job_id} {self._states[job.job_id]}")
        self._waiting = waiting

    # -- what is said of them ----------------------------------------------------------------
    def describe(self, place: int) -> str:
        """The state of the job at position `place`, the last line of its log, and the log's
        path."""
        if place >= len(self.jobs):
            return "not submitted"
        job = self.jobs[place]
        state = self._states.get(job.job_id, "")
        # submitit stores an error as a result, which may be newer than the last query.
        if job.paths.result_pickle.exists():
            state = "ended with an error"
        head = f"job {job.job_id} {state}".strip()
        log = job.paths.stderr
        try:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return f"{head}; it did not start: there is no log"
        # srun and submitit report the end of every job, whatever its reason.
        said = [line for line in lines if line.strip() and not line.startswith(NOISE)]
        return "; ".join([head, *said[-1:], f"log {log}"])

    def release(self) -> str:
        """Stop waiting: SLURM's jobs continue, jobs on this machine are ended.

        Returns:
            A message about the jobs that continue; '' if there are none.
        """
        if self.cluster != SLURM:
            for job in self._waiting:
                job.cancel()
            return ""
        if not self._waiting:
            return ""
        numbers = " ".join(dict.fromkeys(_array(job) for job in self._waiting))
        return (
            f"{len(self._waiting)} jobs continue in SLURM: `scancel {numbers}` stops them, and the "
            "same command picks up what they finish"
        )


def _array(job: submitit.Job[Any]) -> str:
    """The number of the array that a job belongs to, or of the job itself."""
    return job.job_id.partition("_")[0]


class _Ended:
    """A finished job, as far as Hydra's launchers use it."""

    def results(self) -> list[JobReturn]:
        return [JobReturn(status=JobStatus.COMPLETED)]


# -- in a job ------------------------------------------------------------------------------------
class Stopped(BaseException):
    """The cluster stops a job. Not an Exception, which would count as a failure of the method."""


def stop_is_no_failure() -> None:
    """In a job of submitit, let the signal before the time limit end the job without a record.

    submitit itself answers the signal by requeueing the job or, if that is not allowed, with an
    exception.
    """
    number = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")
    answer = signal.getsignal(number)
    if not callable(answer):
        return

    def stop(number: int, frame: FrameType | None) -> None:
        try:
            answer(number, frame)
        except UncompletedJobError as error:
            raise Stopped(
                f"{error} For more time, raise hydra.launcher.timeout_min; for more tries, "
                "hydra.launcher.max_num_timeout"
            ) from None

    signal.signal(number, stop)
