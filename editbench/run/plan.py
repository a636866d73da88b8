"""What a sweep would run, and which results exist already. Nothing is built, fitted or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from editbench.bank.layout import shard_folder, shard_size
from editbench.run.answer_cache import keep_answer, recall_answer
from editbench.run.job_names import JobNames
from editbench.run.record import Record

STATUSES = ("done", "skipped", "failed", "missing", "impossible")
TO_RUN = ("failed", "missing")  # jobs with these statuses run; done and skipped jobs do not


@dataclass(frozen=True)
class BankState:
    """A bank of a plan, and how much of it exists.

    Args:
        id: its identity.
        folder: its folder, which need not exist yet.
        n: number of samples.
        built: whether it is complete.
        shards: number of shards of the complete bank.
        shards_there: number of shards that exist now.
    """

    id: str
    folder: str
    n: int
    built: bool
    shards: int
    shards_there: int


@dataclass(frozen=True)
class PlannedJob:
    """One job of a plan.

    Args:
        names: of its record, its bank and its fits.
        status: one of STATUSES.
        reason: why it was skipped, failed or cannot run.
        bank: None for a job that cannot run.
    """

    names: JobNames
    status: str
    reason: str = ""
    bank: BankState | None = None

    @property
    def to_run(self) -> bool:
        """Whether a sweep would work on it."""
        return self.status in TO_RUN

    @property
    def fit_cached(self) -> bool:
        """Whether every fit that it needs is in the cache."""
        files = self.names.fits
        return bool(files) and all(Path(file).exists() for file in files)


def plan_sweep(overrides: Sequence[str], more: Sequence[Path] = ()) -> list[PlannedJob]:
    """Look every job of a sweep up.

    Args:
        overrides: words of the command line.
        more: a user's own configuration folders.

    Raises:
        UnknownName: a word names an option or a key that does not exist.
        EditbenchError: the settings of a job are wrong. A job whose attribute or files are not
            there is in the plan, as 'impossible'.
    """
    return [plan_job(names) for names in _names(overrides, more)]


def _names(overrides: Sequence[str], more: Sequence[Path]) -> list[JobNames]:
    """The names of every job, from the cache of answers or computed again."""
    question = ["plan", *overrides]
    # Changes in a user's own folders are not detected, so nothing is cached for them.
    kept = None if more else recall_answer(question)
    if kept is not None:
        return [JobNames(**job) for job in kept]
    # Imported here: it loads torch, the networks and the classes of the methods.
    from editbench.run.naming import name_jobs

    jobs: list[JobNames] = []
    configs: list[dict[str, Any]] = []
    for settings, names in name_jobs(overrides, more):
        jobs.append(names)
        configs.append(settings.plain)
    # A reason may disappear without a change of any file that is watched.
    if not more and not any(job.reason for job in jobs):
        keep_answer(question, [asdict(job) for job in jobs], configs)
    return jobs


def plan_job(names: JobNames) -> PlannedJob:
    """Look a job up as `run_job` would."""
    if names.reason:
        return PlannedJob(names, "impossible", names.reason)
    bank = bank_state(names)
    found = Record.open(Path(names.out) / names.run_id)
    # An incomplete record counts as missing: the job would run.
    if found is None:
        return PlannedJob(names, "missing", bank=bank)
    return PlannedJob(names, found.status["status"], found.status["reason"], bank)


def bank_state(names: JobNames) -> BankState:
    """The bank of a job, and how much of it exists."""
    folder = Path(names.bank_folder)
    # A bank whose build has started keeps its shard size.
    shards = -(-names.n // shard_size(folder, names.shard))
    there = sum(shard_folder(folder, shard).exists() for shard in range(shards))
    # If a damaged shard was deleted, it is built again.
    built = (folder / "bank.json").exists() and there == shards
    return BankState(names.bank, names.bank_folder, names.n, built, shards, there)


# -- the plan as a whole -------------------------------------------------------------------------
def banks(jobs: Sequence[PlannedJob]) -> list[BankState]:
    """The distinct banks, in the order of their first job."""
    return list(dict.fromkeys(job.bank for job in jobs if job.bank))


def totals(jobs: Sequence[PlannedJob]) -> dict[str, int]:
    """Jobs by status, and how many fits (for all attributes) and tunings (for one attribute) the
    jobs to run would have to make."""
    records: set[tuple[str, str]] = set()  # two jobs of a sweep may have one record
    fits: set[str] = set()
    tunings: set[str] = set()
    for job in jobs:
        if job.to_run:
            records.add((job.names.out, job.names.run_id))
            fits.update(job.names.fits[:1])
            tunings.update(job.names.fits[1:])
    counts = {"jobs": len(jobs)}
    for status in STATUSES:
        counts[status] = sum(job.status == status for job in jobs)
    counts["to_run"] = len(records)
    # Jobs share fits: each is made by the first one that needs it.
    counts["to_fit"] = sum(not Path(file).exists() for file in fits)
    counts["to_tune"] = sum(not Path(file).exists() for file in tunings)
    return counts


def as_data(jobs: Sequence[PlannedJob]) -> dict[str, Any]:
    """The plan as plain values: jobs, banks and totals."""
    rows: list[dict[str, Any]] = []
    for job in jobs:
        names = job.names
        rows.append(
            {
                "method": names.method,
                "attribute": names.attribute,
                "seed": names.seed,
                "overrides": names.overrides,
                "status": job.status,
                "reason": job.reason,
                "run_id": names.run_id,
                "out": names.out,
                "bank": job.bank.id if job.bank else None,
                "fit_cached": job.fit_cached,
            }
        )
    return {"jobs": rows, "banks": [vars(bank) for bank in banks(jobs)], "totals": totals(jobs)}


def reasons(jobs: Sequence[PlannedJob]) -> dict[tuple[str, str], int]:
    """(status, reason) -> how many jobs have it, in the order of the first."""
    counts: dict[tuple[str, str], int] = {}
    for job in jobs:
        if job.reason:
            key = (job.status, job.reason)
            counts[key] = counts.get(key, 0) + 1
    return counts
