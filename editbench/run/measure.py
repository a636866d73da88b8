"""The metrics of a record: computed when its job ends, and again when their configuration or version has changed."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from editbench.base.files import digest, write_json
from editbench.run import record as records
from editbench.run.loading import load_metrics
from editbench.run.record import Record
from editbench.walk.metric import Metric, ProbeMetric
from editbench.walk.probe import read_probe
from editbench.walk.trajectory import Trajectories


def compute_metrics(folder: Path, trajectories: Trajectories, cfg: DictConfig) -> None:
    """Rows and samples of every metric, from the trajectories and what probes left alone."""
    metrics = load_metrics(cfg)
    results = {
        name: metric.read(read_probe(folder, metric.probe))
        if isinstance(metric, ProbeMetric)
        else metric(trajectories)
        for name, metric in metrics.items()
    }
    records.write_metrics(
        folder, results, {name: (m.version, m.produces) for name, m in metrics.items()}
    )
    write_json(folder / Record.METRICS, {"key": metrics_key(cfg, metrics)})


def metrics_key(cfg: DictConfig, metrics: dict[str, Metric]) -> str:
    versions = {name: metric.version for name, metric in metrics.items()}
    return digest(
        {"versions": versions, "config": OmegaConf.to_container(cfg.metric, resolve=True)}
    )


def refresh_metrics(record: Record, cfg: DictConfig) -> None:
    """Recompute the metrics of a finished record when their configuration or version has changed."""
    if record.status["status"] != "done":
        return
    if record.metrics_key() != metrics_key(cfg, load_metrics(cfg)):
        trajectories = record.trajectories()
        with record.updating() as folder:
            compute_metrics(folder, trajectories, cfg)
