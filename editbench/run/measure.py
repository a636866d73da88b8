"""The metrics of a record: computed when its job ends, and again when their configuration or version has changed."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from editbench.base.files import digest, read_json, write_json
from editbench.run import record as records
from editbench.run.loading import load_metrics
from editbench.run.record import Record
from editbench.walk.metric import Metric, ObservationMetric
from editbench.walk.observation import read_observed
from editbench.walk.trajectory import Trajectories


def compute_metrics(folder: Path, trajectories: Trajectories, cfg: DictConfig) -> None:
    """Rows and samples of every metric, from the trajectories and what observations kept alone."""
    metrics = load_metrics(cfg)
    results = {
        name: metric.read(read_observed(folder, metric.observation))
        if isinstance(metric, ObservationMetric)
        else metric(trajectories)
        for name, metric in metrics.items()
    }
    records.write_metrics(
        folder, results, {name: (m.version, m.produces) for name, m in metrics.items()}
    )
    write_json(folder / "metrics.json", {"key": metrics_key(cfg, metrics)})


def metrics_key(cfg: DictConfig, metrics: dict[str, Metric]) -> str:
    versions = {name: metric.version for name, metric in metrics.items()}
    return digest(
        {"versions": versions, "config": OmegaConf.to_container(cfg.metric, resolve=True)}
    )


def refresh_metrics(record: Record, cfg: DictConfig) -> None:
    """Recompute the metrics of a finished record when their configuration or version has changed."""
    if record.status["status"] != "done":
        return
    stamp = record.folder / "metrics.json"
    if not stamp.exists() or read_json(stamp).get("key") != metrics_key(cfg, load_metrics(cfg)):
        compute_metrics(record.folder, record.trajectories(), cfg)
