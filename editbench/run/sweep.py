"""Many jobs: lines as they end, a summary with reasons, and the same outcome files under every Hydra launcher."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import claim_folder, read_json, write_json
from editbench.run.job import Outcome, run_job
from editbench.run.launch import (
    available_cores,
    dealt_device,
    end_with_parent,
    local_workers,
    many_processes,
    sweep_jobs,
    worker_threads,
)
from editbench.run.record import Record

THREADS, STARTER = (
    "OMP_NUM_THREADS",
    "EDITBENCH_SWEEP_PID",
)  # told to workers through the environment
LISTED = 20  # unfinished jobs that the summary names


@dataclass(frozen=True)
class Sweep:
    """A sweep that this process started: where its jobs leave their outcomes, and the overrides of each, if known."""

    folder: Path
    jobs: list[list[str]]


LAST_SWEEP: list[Sweep] = []


class SweepSummary(Callback):
    """Before the jobs of a multirun start: a folder of their own for the outcomes, and their share of the cores."""

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        with suppress(
            OSError
        ):  # Hydra makes the folder again and meets the same trouble, and then it is explained
            folder = claim_folder(Path(config.hydra.sweep.dir).absolute())
            quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
            with flag_override(config, ["struct", "readonly"], [False, False]):
                config.hydra.sweep.dir = str(folder)
                config.hydra.overrides.hydra.append(
                    f"hydra.sweep.dir='{quoted}'"
                )  # each job composes its own
            LAST_SWEEP[:] = [Sweep(folder, self.expand(config))]
            os.environ[STARTER] = str(os.getpid())
            share_cores(config, len(LAST_SWEEP[0].jobs))

    def expand(self, config: DictConfig) -> list[list[str]]:
        try:
            return sweep_jobs(config, GlobalHydra.instance().config_loader())
        except HydraException:  # the sweeper meets it again and says so
            return []


def share_cores(config: DictConfig, jobs: int) -> None:
    """Tell the processes that a launcher is about to start how many threads each may have."""
    cores = available_cores()
    threads = worker_threads(local_workers(config, jobs, cores), cores, os.environ)
    if threads is not None:
        os.environ[THREADS] = str(threads)


@contextmanager
def own_environment() -> Iterator[None]:
    """Undo what a sweep set for its workers, for whatever this process does next."""
    before = {name: os.environ.get(name) for name in (THREADS, STARTER)}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def hydra_job(cfg: DictConfig) -> Outcome:
    """One job under a Hydra launcher: its outcome is printed and, in a multirun, left for the summary."""
    join_sweep(cfg)
    try:
        outcome = run_job(cfg)
    except Exception as error:  # one job's trouble is not the sweep's
        outcome = failure(error)
    say(describe(cfg, outcome, f"#{HydraConfig.get().job.num}" if in_multirun() else ""))
    leave_outcome(title(cfg), outcome)
    return outcome


def in_multirun() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def join_sweep(cfg: DictConfig) -> None:
    """In a worker of a sweep: with device=cuda take the GPU that is this job's in turn; under joblib end with the
    process that started the sweep (the jobs of submitit are meant to outlive it)."""
    launcher = str(HydraConfig.get().launcher["_target_"])
    if not in_multirun() or not many_processes(launcher):
        return
    cfg.device = dealt_device(cfg.device, HydraConfig.get().job.num, torch.cuda.device_count())
    if cfg.device.startswith("cuda:"):
        torch.cuda.set_device(cfg.device)
    if launcher.endswith(".JoblibLauncher"):
        end_with_parent(int(os.environ[STARTER]))


def leave_outcome(job: str, outcome: Outcome) -> None:
    """In a multirun, write the outcome where the process that started the sweep reads it."""
    if in_multirun():
        hydra = HydraConfig.get()
        write_json(Path(hydra.sweep.dir) / f"{hydra.job.num}.json", {"job": job, **vars(outcome)})


def failure(error: Exception) -> Outcome:
    """A job that failed before it could leave a record."""
    text = str(error) if isinstance(error, EditbenchError) else f"{type(error).__name__}: {error}"
    return Outcome("failed", text, "", False)


def describe(cfg: DictConfig, outcome: Outcome, number: str = "") -> str:
    """One line on a job: what, status, and its first numbers or its reason."""
    head = f"{number} {title(cfg)}: {outcome.status}".strip()
    if outcome.reused:
        head += " (found)"
    if outcome.status != "done":
        return f"{head}: {outcome.reason}"
    return f"{head}: {headline(Path(cfg.out) / outcome.run_id)}"


def title(cfg: DictConfig) -> str:
    method = cfg.method.name if OmegaConf.is_config(cfg.method) else cfg.method
    return f"{method} x {cfg.attribute}, seed {cfg.seed}"


def headline(folder: Path, count: int = 2) -> str:
    """The first scalar rows of a record, as text."""
    rows = Record.read(folder).rows()
    rows = rows[rows["x"].isna()].head(count)
    return ", ".join(
        f"{r.metric} {r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in rows.itertuples()
    )


def summarise(outcomes: list[dict], lost: Sequence[str] = (), stopped: bool = False) -> int:
    """Print how many jobs were done, skipped, failed, and why; 1 if any failed.

    lost: jobs that left no outcome. Where the sweep was not stopped on purpose they make it fail.
    """
    counts = {
        status: [o for o in outcomes if o["status"] == status]
        for status in ("done", "skipped", "failed")
    }
    reused = sum(o["reused"] for o in outcomes)
    say(
        f"\n{len(outcomes) + len(lost)} jobs: "
        + ", ".join(f"{len(jobs)} {status}" for status, jobs in counts.items())
        + (f", {len(lost)} not finished" if lost else "")
        + (f" ({reused} found from before)" if reused else "")
    )
    for status in ("skipped", "failed"):
        for outcome in counts[status]:
            say(f"  {status}  {outcome['job']}: {outcome['reason']}")
    if lost and not stopped:
        for job in [
            *lost[:LISTED],
            *([f"and {len(lost) - LISTED} more"] if len(lost) > LISTED else []),
        ]:
            say(f"  not finished  {job}")
        say(
            "these left no outcome: a worker was killed (out of memory?), or they still run in a queue. Finished jobs "
            "and bank shards are kept; the same command runs what is missing"
        )
    return 1 if counts["failed"] or (lost and not stopped) else 0


def finish_sweep(sweep: Sweep, stopped: bool = False) -> int:
    """The summary of a sweep from the outcomes that its jobs left; its exit code."""
    outcomes = read_outcomes(sweep.folder)
    common = set.intersection(*map(set, sweep.jobs)) if len(sweep.jobs) > 1 else set()
    lost = [
        f"#{k} {' '.join(word for word in job if word not in common)}"
        for k, job in enumerate(sweep.jobs)
        if k not in outcomes
    ]
    return summarise(list(outcomes.values()), lost, stopped)


def read_outcomes(folder: Path) -> dict[int, dict]:
    """Outcomes that the jobs of a sweep left, by their numbers."""
    outcomes = {}
    for file in sorted(folder.glob("[!.]*.json"), key=lambda file: int(file.stem)):
        try:
            outcomes[int(file.stem)] = read_json(file)
        except BadFile as error:
            say(str(error))
    return outcomes


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
