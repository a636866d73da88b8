"""The metrics of a record: computed when its job ends, and again when they have changed."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from editbench.base.files import digest, write_json
from editbench.run import record as records
from editbench.run.loading import load_metrics
from editbench.run.record import Record
from editbench.walk.metric import ROW_COLUMNS, Metric, ObservationMetric
from editbench.walk.probe import read_probe
from editbench.walk.trajectory import Trajectories


def compute_metrics(folder: Path, trajectories: Trajectories, cfg: DictConfig) -> None:
    """Write rows and samples of every metric of the configuration.

    Args:
        folder: of the record; what observations left is read from there.
        trajectories: of the record.
        cfg: the job's configuration.
    """
    metrics = load_metrics(cfg)
    results = {}
    for name, metric in metrics.items():
        if isinstance(metric, ObservationMetric):
            metric.update(read_probe(folder, metric.observation))
        else:
            metric.update(trajectories)
        results[name] = metric.compute()
    kinds = {name: (metric.version, metric.produces) for name, metric in metrics.items()}
    records.write_metrics(folder, results, kinds)
    write_json(folder / Record.METRICS, {"key": metrics_key(cfg, metrics)})


def metrics_key(cfg: DictConfig, metrics: dict[str, Metric]) -> str:
    """Hash of what decides the rows: versions and options of the metrics, and their columns."""
    options = OmegaConf.to_container(cfg.metric, resolve=True)
    assert isinstance(options, dict)
    for part in options.values():
        part.pop("figure", None)  # a drawing changes no number
    versions = {name: metric.version for name, metric in metrics.items()}
    # Rows of other columns, written by an older version, are computed again.
    return digest({"versions": versions, "config": options, "columns": ROW_COLUMNS})


def refresh_metrics(record: Record, cfg: DictConfig) -> None:
    """Recompute the metrics of a finished record when configuration or version has changed."""
    if record.status["status"] != "done":
        return
    if record.metrics_key() != metrics_key(cfg, load_metrics(cfg)):
        with record.updating() as folder:
            compute_metrics(folder, record.trajectories(), cfg)
