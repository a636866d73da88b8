"""What a sweep would run, and what of it is there already. Nothing is built, fitted or written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.utils import get_class

from editbench.bank.bank import shard_folder
from editbench.bank.build import current_layout
from editbench.base.errors import EditbenchError
from editbench.run.compose import sweep_settings
from editbench.run.fits import fit_files
from editbench.run.job import make_run_id
from editbench.run.loading import bank_folder, load_bank, load_networks
from editbench.run.protocol import check_protocol
from editbench.run.record import Record
from editbench.run.settings import Settings

STATUSES = ("done", "skipped", "failed", "missing", "impossible")
TO_RUN = ("failed", "missing")  # jobs of these statuses run; done and skipped ones are found
COLUMNS = ("method", "attribute", "seed")  # overrides that have a column of their own


@dataclass(frozen=True)
class BankState:
    """A bank of a plan and how much of it is there.

    Args:
        id: its identity.
        folder: where it lies or will lie.
        n: samples.
        built: whether it is whole.
        shards: how many it has when it is whole.
        shards_there: how many it has now.
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
        method: of the job.
        attribute: of the job.
        seed: of the job.
        overrides: its words.
        status: one of STATUSES.
        reason: why it was skipped, failed or cannot run.
        run_id: name of its record.
        out: folder of the records.
        bank: None for a job that cannot run.
        fit_files: the cached fits that it needs.
    """

    method: str
    attribute: str
    seed: int
    overrides: list[str]
    status: str
    reason: str = ""
    run_id: str = ""
    out: str = ""
    bank: BankState | None = None
    fit_files: list[Path] = field(default_factory=list)

    @property
    def to_run(self) -> bool:
        """Whether a sweep would work on it."""
        return self.status in TO_RUN

    @property
    def fit_cached(self) -> bool:
        """Whether every fit that it needs is there."""
        return bool(self.fit_files) and all(file.exists() for file in self.fit_files)


def plan_sweep(overrides: Sequence[str], more: Sequence[Path] = ()) -> list[PlannedJob]:
    """Look every job of a sweep up.

    Args:
        overrides: words of the command line, which `check_overrides` has seen.
        more: a user's own configuration folders.

    Raises:
        EditbenchError: the settings of a job are wrong. A job whose attribute or files are not
            there is in the plan, as 'impossible'.
    """
    return [plan_job(settings, words) for words, settings in sweep_settings(overrides, more)]


def plan_job(settings: Settings, words: list[str]) -> PlannedJob:
    """Look a job up as `run_job` would."""
    method = settings.method.name
    attribute = settings.attribute
    seed = settings.seed
    try:
        networks = load_networks(settings)
        names = check_protocol(settings, networks.judge.attributes)
        bank = bank_state(settings)
        run_id = make_run_id(settings, bank.id, names)
        # The class alone says whether there is a tuning for the attribute beside the fit.
        editor = get_class(settings.method.target)
        files = fit_files(settings, bank.id, networks.select(names), attribute, editor)
    except EditbenchError as error:
        return PlannedJob(method, attribute, seed, words, "impossible", str(error))
    # A record that is not whole is as good as none: the job would run.
    found = Record.open(settings.out / run_id)
    status = "missing"
    reason = ""
    if found is not None:
        status = found.status["status"]
        reason = found.status["reason"]
    out = str(settings.out)
    return PlannedJob(method, attribute, seed, words, status, reason, run_id, out, bank, files)


def bank_state(settings: Settings) -> BankState:
    """The bank of a job. Its identity follows from its networks and options, so it is known before
    the bank is built."""
    if settings.bank.path:
        bank = load_bank(settings)
        shards = bank.spec.shards
        return BankState(bank.id, str(bank.folder), len(bank), True, shards, shards)
    folder, identity = bank_folder(settings)
    # A bank that was begun keeps the shard size it was begun with.
    spec = current_layout(folder, settings.bank.spec)
    there = sum(shard_folder(folder, shard).exists() for shard in range(spec.shards))
    built = (folder / "bank.json").exists()
    return BankState(identity, str(folder), spec.n, built, spec.shards, there)


# -- the plan as a whole -------------------------------------------------------------------------
def banks(jobs: Sequence[PlannedJob]) -> list[BankState]:
    """The distinct banks, in the order of their first job."""
    return list(dict.fromkeys(job.bank for job in jobs if job.bank))


def totals(jobs: Sequence[PlannedJob]) -> dict[str, int]:
    """Jobs by status, and the fits and tunings that the jobs to run would have to make."""
    records: set[tuple[str, str]] = set()  # two jobs of a sweep may have one record
    fits: set[Path] = set()
    for job in jobs:
        if job.to_run:
            records.add((job.out, job.run_id))
            fits.update(job.fit_files)
    # Jobs share fits: each is made by the first one that needs it.
    missing = {file for file in fits if not file.exists()}
    counts = {"jobs": len(jobs)}
    for status in STATUSES:
        counts[status] = sum(job.status == status for job in jobs)
    counts["to_run"] = len(records)
    counts["to_fit"] = len(missing)
    return counts


def as_data(jobs: Sequence[PlannedJob]) -> dict[str, Any]:
    """The plan as plain values: jobs, banks and totals."""
    rows: list[dict[str, Any]] = []
    for job in jobs:
        row = dict(vars(job))
        del row["fit_files"]  # paths of this machine; `fit_cached` says what matters
        row["bank"] = job.bank.id if job.bank else None
        row["fit_cached"] = job.fit_cached
        rows.append(row)
    return {"jobs": rows, "banks": [vars(bank) for bank in banks(jobs)], "totals": totals(jobs)}


def reasons(jobs: Sequence[PlannedJob]) -> dict[tuple[str, str], int]:
    """(status, reason) -> how many jobs have it, in the order of the first."""
    counts: dict[tuple[str, str], int] = {}
    for job in jobs:
        if job.reason:
            key = (job.status, job.reason)
            counts[key] = counts.get(key, 0) + 1
    return counts


def varied_overrides(jobs: Sequence[PlannedJob]) -> list[str]:
    """Of each job, the overrides that differ between jobs and have no column of their own."""
    # Words that every job has, such as budget=demo, would fill the column and tell nothing.
    counts = Counter(word for job in jobs for word in job.overrides)
    varied: list[str] = []
    for job in jobs:
        own: list[str] = []
        for word in job.overrides:
            if word.split("=")[0] not in COLUMNS and counts[word] < len(jobs):
                own.append(word)
        varied.append(" ".join(own))
    return varied
