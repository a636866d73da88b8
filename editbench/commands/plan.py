"""`editbench plan`: what `editbench run -m` with the same words would run, and what is there already."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import get_class
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from editbench.bank.bank import shard_folder
from editbench.bank.build import current_layout
from editbench.base.conf import CONF
from editbench.base.errors import EditbenchError
from editbench.base.progress import status
from editbench.commands.run import check_words, expand_experiment, flags_first, split_words
from editbench.report.write import PIPE
from editbench.run.fits import fit_files
from editbench.run.job import check_job, make_run_id
from editbench.run.launch import sweep_jobs
from editbench.run.loading import bank_folder, bank_spec, load_bank, load_networks
from editbench.run.record import Record

HELP = """usage: editbench plan [--json] [the words of `editbench run -m`]

Say for every job of a sweep whether its record is there, and whether its bank and fit are cached; nothing is built,
fitted or written. done and skipped jobs would be found, failed and missing ones run.

examples:
  editbench plan method=gradctrl,interfacegan attribute=smile,age
  editbench plan experiment=chen2022_table1 budget=demo
  editbench plan experiment=chen2022_table1 seed='range(3)' --json

exit code: 0; 1 where a job cannot run at all (an unknown attribute, a file that is not there), with the reason
"""
STATUSES = ("done", "skipped", "failed", "missing", "impossible")
COLOURS = {
    "done": "green",
    "skipped": "dim",
    "failed": "bold red",
    "missing": "yellow",
    "impossible": "bold red",
}
SHOWN = ("method", "attribute", "seed")  # overrides that have a column of their own


@dataclass(frozen=True)
class BankState:
    """A bank of a plan and how much of it is there."""

    id: str
    folder: str
    n: int
    built: bool
    shards: int
    shards_there: int


@dataclass(frozen=True)
class PlannedJob:
    """One job: what it is, what became of it before, and which of its inputs are cached."""

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
        return self.status in ("failed", "missing")

    @property
    def fit_cached(self) -> bool:
        return bool(self.fit_files) and all(file.exists() for file in self.fit_files)


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    as_json = "--json" in argv
    argv = expand_experiment([word for word in argv if word not in ("--json", "-m", "--multirun")])
    check_words(argv)
    overrides, folders = split_words(argv)
    others = [
        word
        for word in flags_first(argv)
        if word.startswith("-") and word not in ("--config-dir", "-cd")
    ]
    if others:
        raise EditbenchError(f"{others[0]} means nothing to a plan (see `editbench plan --help`)")
    with status("planning") if sys.stderr.isatty() else nullcontext():
        jobs = [plan_job(cfg, words) for words, cfg in job_configs(overrides, folders)]
    if as_json:
        print(json.dumps(as_data(jobs), indent=1))
    else:
        show(jobs)
    return int(any(job.status == "impossible" for job in jobs))


def job_configs(overrides: list[str], more: list[Path]) -> Iterator[tuple[list[str], DictConfig]]:
    """The overrides and the configuration of every job, composed as Hydra does for a multirun."""
    GlobalHydra.instance().clear()
    search_path = create_config_search_path(str(CONF))
    for folder in more:
        search_path.prepend(
            "command-line", f"file://{folder.absolute()}", SearchPathQuery(provider="schema")
        )
    try:
        hydra = Hydra.create_main_hydra2("editbench", search_path)
        master = hydra.compose_config(
            "run", overrides, RunMode.MULTIRUN, with_log_configuration=False
        )
        for words in sweep_jobs(master, hydra.config_loader):
            cfg = hydra.config_loader.load_sweep_config(master, words)
            with open_dict(cfg):
                del cfg["hydra"]
            yield words, cfg
    except (HydraException, OmegaConfBaseException) as error:
        raise EditbenchError(f"could not compose the configuration: {error}") from error
    finally:
        GlobalHydra.instance().clear()


def plan_job(cfg: DictConfig, words: list[str]) -> PlannedJob:
    """Look a job up as `run_job` would, without building anything."""
    told = cfg.method.name, cfg.attribute, cfg.seed, words
    try:
        networks = load_networks(cfg)
        names = check_job(cfg, networks)
        bank = bank_state(cfg)
        run_id = make_run_id(cfg, bank.id, names)
        files = fit_files(cfg, bank.id, networks, cfg.attribute, get_class(cfg.method["_target_"]))
    except EditbenchError as error:
        return PlannedJob(*told, "impossible", str(error))
    found = Record.open(Path(cfg.out) / run_id)
    state, reason = (
        ("missing", "") if found is None else (found.status["status"], found.status["reason"])
    )
    return PlannedJob(*told, state, reason, run_id, str(cfg.out), bank, files)


def bank_state(cfg: DictConfig) -> BankState:
    """The bank of a job. Its identity follows from its networks and its options, so it is known before it is built."""
    if cfg.bank.path:
        bank = load_bank(cfg)
        return BankState(
            bank.id, str(bank.folder), len(bank), True, bank.spec.shards, bank.spec.shards
        )
    folder, identity = bank_folder(cfg)
    spec = current_layout(folder, bank_spec(cfg))
    there = sum(shard_folder(folder, k).exists() for k in range(spec.shards))
    return BankState(
        identity, str(folder), spec.n, (folder / "bank.json").exists(), spec.shards, there
    )


# -- output ------------------------------------------------------------------------------------------------------------
def as_data(jobs: list[PlannedJob]) -> dict:
    """The plan as plain values: jobs, banks and totals."""
    rows = [
        {name: value for name, value in vars(job).items() if name not in ("bank", "fit_files")}
        | {"bank": job.bank and job.bank.id, "fit_cached": job.fit_cached}
        for job in jobs
    ]
    return {"jobs": rows, "banks": [vars(bank) for bank in banks(jobs)], "totals": totals(jobs)}


def banks(jobs: list[PlannedJob]) -> list[BankState]:
    """The distinct banks, in order of their first job."""
    return list(dict.fromkeys(job.bank for job in jobs if job.bank))


def totals(jobs: list[PlannedJob]) -> dict[str, int]:
    """Jobs by status, and the fits (with tunings) that the jobs to run would have to make."""
    to_run = [job for job in jobs if job.to_run]
    fits = {file for job in to_run for file in job.fit_files if not file.exists()}
    return (
        {"jobs": len(jobs)}
        | {name: sum(job.status == name for job in jobs) for name in STATUSES}
        | {"to_run": len({(job.out, job.run_id) for job in to_run}), "to_fit": len(fits)}
    )


def show(jobs: list[PlannedJob]) -> None:
    """Print the table, the banks, reasons, and totals."""
    out = Console() if sys.stdout.isatty() else Console(width=PIPE)
    varied = varied_overrides(jobs)
    table = Table(
        *SHOWN, *(["more"] if any(varied) else []), "status", "run id", "bank", "fit", box=None
    )
    for job, more in zip(jobs, varied):
        cells = [job.method, str(job.attribute), str(job.seed), *([more] if any(varied) else [])]
        table.add_row(
            *cells,
            f"[{COLOURS[job.status]}]{job.status}[/]",
            job.run_id,
            "" if job.bank is None else "cached" if job.bank.built else "to build",
            ""
            if job.bank is None
            else "cached"
            if job.fit_cached
            else "to fit"
            if job.to_run
            else "-",
        )
    out.print(table)
    for bank in banks(jobs):
        parts = f", {bank.shards_there} of {bank.shards} shards there" if bank.shards_there else ""
        out.print(
            f"bank {bank.id}: {'cached' if bank.built else f'to be built{parts}'}, {bank.n} samples",
            highlight=False,
        )
    reasons = dict.fromkeys((job.status, job.reason) for job in jobs if job.reason)
    for name, reason in reasons:
        count = sum((job.status, job.reason) == (name, reason) for job in jobs)
        out.print(
            f"{name}, {count} {'job' if count == 1 else 'jobs'}: {reason}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    sums = totals(jobs)
    told = ", ".join(f"{sums[name]} {name}" for name in STATUSES if sums[name])
    out.print(
        f"{sums['jobs']} jobs: {told}; to run: {sums['to_run']}; fits to make: {sums['to_fit']}",
        highlight=False,
        soft_wrap=True,
    )


def varied_overrides(jobs: list[PlannedJob]) -> list[str]:
    """Of each job, the overrides that differ between jobs and have no column."""
    sets = [{word for word in job.overrides if word.split("=")[0] not in SHOWN} for job in jobs]
    common = set.intersection(*sets) if sets else set()
    return [
        " ".join(word for word in job.overrides if word in own - common)
        for job, own in zip(jobs, sets)
    ]
