"""What a job leaves behind: ROOT/<run id>/ with status, config, provenance, trajectories, metric rows, pictures,
and what observations kept.

A record is written beside its place and renamed into it, so a folder with status.json is whole. `done` and `skipped`
are results and are kept; a failure is kept for reading but never taken for a result.
"""

from __future__ import annotations

import platform
import resource
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from editbench.base.errors import BadFile
from editbench.base.files import read_json, write_atomic, write_json
from editbench.walk.engine import Pictures
from editbench.walk.metric import MetricResult
from editbench.walk.observation import observation_file
from editbench.walk.trajectory import Trajectories

STATUSES = ("done", "skipped", "failed")
PACKAGES = (
    "editbench",
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "hydra-core",
    "omegaconf",
)


@dataclass(frozen=True)
class Record:
    """A finished folder and its status."""

    folder: Path
    status: dict

    @property
    def final(self) -> bool:
        return self.status["status"] in ("done", "skipped")

    @classmethod
    def open(cls, folder: Path) -> Record | None:
        """The record in a folder, or None where there is none or only a broken one."""
        try:
            status = read_json(folder / "status.json")
        except BadFile:
            return None
        record = cls(folder, status)
        return record if status.get("status") in STATUSES and record.readable() else None

    def readable(self) -> bool:
        """Whether the tables of a done record are whole; one that was damaged is run again."""
        if self.status["status"] != "done":
            return True
        try:
            for name in ("trajectory", "rows", "samples"):
                pq.read_metadata(self.folder / f"{name}.parquet")
            for name in self.status.get("observations", ()):
                with safe_open(observation_file(self.folder, name), "np"):
                    pass
        except (OSError, pa.ArrowException, SafetensorError):
            return False
        return True

    def trajectories(self) -> Trajectories:
        return Trajectories.load(self.folder / "trajectory.parquet")


def write_status(folder: Path, status: str, reason: str = "", **about: object) -> None:
    write_json(folder / "status.json", {"status": status, "reason": reason, **about})


def write_config(folder: Path, cfg: DictConfig) -> None:
    """The operative configuration, resolved."""
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))


def write_metrics(
    folder: Path, results: dict[str, MetricResult], kinds: dict[str, tuple[int, dict]]
) -> None:
    """rows.parquet and samples.parquet from the result of each metric; kinds: its version and directions."""
    rows, samples = [], []
    for name, result in results.items():
        version, directions = kinds[name]
        better = (
            result.rows["metric"].str.split("[").str[0].map(directions).astype(object)
        )  # 'name[of what]'
        rows.append(result.rows.assign(version=version, higher_is_better=better))
        samples.append(result.samples)
    for name, parts in (("rows", rows), ("samples", samples)):
        write_atomic(folder / f"{name}.parquet", pd.concat(parts, ignore_index=True).to_parquet())


def write_pictures(
    folder: Path, pictures: Pictures, trajectories: Trajectories, columns: int = 8
) -> None:
    """strips.safetensors: of each kept start its source, small to large steps, and the crossing.

    images (k, c, C, H, W) uint8; steps, crossed, effect (k, c); starts, source, target (k,). Class names are in
    status.json.
    """
    if not pictures.images:
        return
    table = trajectories.table.assign(effect=trajectories.effect)
    table = table.set_index(["start", "step"]).sort_index()
    images = {(s, t): image for s, t, image in zip(pictures.start, pictures.step, pictures.images)}
    strips: dict[str, list] = {
        name: [] for name in ("images", "steps", "crossed", "effect", "starts", "source", "target")
    }
    for start in pictures.starts.tolist():
        walk = table.loc[start]
        last = int(walk.index.max())
        stop = walk.index[walk["stopped"]]
        chosen = set(np.linspace(0, last, columns).round().astype(int).tolist())
        if len(stop) and int(stop[0]) not in chosen:  # the crossing replaces its nearest neighbour
            chosen.discard(
                min(chosen - {0, last} or {last}, key=lambda step: abs(step - int(stop[0])))
            )
            chosen.add(int(stop[0]))
        steps = sorted(chosen)
        steps += [last] * (columns - len(steps))
        strips["images"].append(torch.stack([images[start, step] for step in steps]))
        strips["steps"].append(torch.tensor(steps))
        strips["crossed"].append(torch.tensor(walk.loc[steps, "crossed"].to_numpy(bool)))
        strips["effect"].append(torch.tensor(walk.loc[steps, "effect"].to_numpy(np.float32)))
        strips["starts"].append(torch.tensor(start))
        for name in ("source", "target"):
            strips[name].append(torch.tensor(int(walk[name].iloc[0])))
    save_file(
        {name: torch.stack(parts) for name, parts in strips.items()}, folder / "strips.safetensors"
    )


def environment() -> dict:
    """Versions and hardware, for the provenance of a record."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "git": git_commit(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def git_commit() -> str | None:
    """Commit of the source tree, with '+' where it has local changes; None outside a checkout."""

    def git(*words: str) -> str | None:
        run = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True
        )
        return run.stdout.strip() if run.returncode == 0 else None

    try:
        commit = git("rev-parse", "--short", "HEAD")
        return commit and commit + ("+" if git("status", "--porcelain", "-uno") else "")
    except OSError:
        return None


def peak_memory_mb(device: str) -> float:
    """Peak resident memory of this process or one that it started and that has ended; on a GPU peak allocation. MiB."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return (
        max(
            resource.getrusage(who).ru_maxrss
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        / 1024
    )
