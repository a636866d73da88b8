"""Many jobs: lines as they end, a summary with reasons, and the same outcome files under every Hydra launcher."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from editbench.errors import BadFile, EditbenchError
from editbench.files import read_json, write_json
from editbench.job import Outcome, run_job

LAST_SWEEP: list[Path] = []  # folder of the sweep that this process started


class SweepSummary(Callback):
    """Remembers where the jobs of a multirun leave their outcomes."""

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        LAST_SWEEP[:] = [Path(config.hydra.sweep.dir)]


def hydra_job(cfg: DictConfig) -> Outcome:
    """One job under a Hydra launcher: its outcome is printed and, in a multirun, left for the summary."""
    hydra = HydraConfig.get()
    multirun = hydra.mode == RunMode.MULTIRUN
    try:
        outcome = run_job(cfg)
    except Exception as error:  # one job's trouble is not the sweep's
        outcome = failure(error)
    say(describe(cfg, outcome, f"#{hydra.job.num}" if multirun else ""))
    if multirun:
        write_json(Path(hydra.sweep.dir) / f"{hydra.job.num}.json", {"job": title(cfg), **vars(outcome)})
    return outcome


def failure(error: Exception) -> Outcome:
    """A job that failed before it could leave a record."""
    text = str(error) if isinstance(error, EditbenchError) else f"{type(error).__name__}: {error}"
    return Outcome("failed", text, "", False)


def run_jobs(configs: Iterable[DictConfig], total: int) -> Iterator[tuple[DictConfig, Outcome]]:
    """Run jobs one after the other in this process."""
    for number, cfg in enumerate(configs, 1):
        try:
            outcome = run_job(cfg)
        except Exception as error:  # one job's trouble is not the demo's
            outcome = failure(error)
        say(describe(cfg, outcome, f"[{number}/{total}]"))
        yield cfg, outcome


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
    rows = pd.read_parquet(folder / "rows.parquet")
    rows = rows[rows["x"].isna()].head(count)
    return ", ".join(f"{r.metric} {r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in rows.itertuples())


def summarise(outcomes: list[dict]) -> int:
    """Print how many jobs were done, skipped, failed, and why; 1 if any failed."""
    counts = {status: [o for o in outcomes if o["status"] == status] for status in ("done", "skipped", "failed")}
    reused = sum(o["reused"] for o in outcomes)
    say(f"\n{len(outcomes)} jobs: " + ", ".join(f"{len(jobs)} {status}" for status, jobs in counts.items())
        + (f" ({reused} found from before)" if reused else ""))
    for status in ("skipped", "failed"):
        for outcome in counts[status]:
            say(f"  {status}  {outcome['job']}: {outcome['reason']}")
    return 1 if counts["failed"] else 0


def read_outcomes(folder: Path) -> list[dict]:
    """Outcomes that the jobs of a sweep left, in their order."""
    files = sorted(folder.glob("*.json"), key=lambda file: int(file.stem))
    outcomes = []
    for file in files:
        try:
            outcomes.append(read_json(file))
        except BadFile as error:
            say(str(error))
    return outcomes


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
