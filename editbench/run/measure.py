"""The metrics of a record: computed when its job ends, and again when their configuration or version has changed."""

from __future__ import annotations

from pathlib import Path

from editbench.base.files import digest, write_json
from editbench.run import record as records
from editbench.run.loading import load_metrics
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.walk.metric import Metric, ObservationMetric
from editbench.walk.observation import read_observed
from editbench.walk.trajectory import Trajectories


def compute_metrics(folder: Path, trajectories: Trajectories, settings: Settings) -> None:
    """Rows and samples of every metric, from the trajectories and what observations kept alone."""
    metrics = load_metrics(settings)
    results = {
        name: metric.read(read_observed(folder, metric.observation))
        if isinstance(metric, ObservationMetric)
        else metric(trajectories)
        for name, metric in metrics.items()
    }
    records.write_metrics(
        folder, results, {name: (m.version, m.produces) for name, m in metrics.items()}
    )
    write_json(folder / Record.METRICS, {"key": metrics_key(settings, metrics)})


def metrics_key(settings: Settings, metrics: dict[str, Metric]) -> str:
    versions = {name: metric.version for name, metric in metrics.items()}
    return digest({"versions": versions, "config": settings.plain["metric"]})


def refresh_metrics(record: Record, settings: Settings) -> None:
    """Recompute the metrics of a finished record when their configuration or version has changed."""
    if record.status["status"] != "done":
        return
    if record.metrics_key() != metrics_key(settings, load_metrics(settings)):
        trajectories = record.trajectories()
        with record.updating() as folder:
            compute_metrics(folder, trajectories, settings)
