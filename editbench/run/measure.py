"""The metrics of a record: computed when its job ends, and again when they have changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from editbench.base.files import digest, write_json
from editbench.run import record as records
from editbench.run.loading import load_metrics
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.walk.observation import read_observed
from editbench.walk.rows import ROW_COLUMNS
from editbench.walk.trajectory import Trajectories

if TYPE_CHECKING:
    from editbench.walk.metric import Metric


def compute_metrics(folder: Path, trajectories: Trajectories, settings: Settings) -> None:
    """Write rows and samples of every metric that the settings name.

    Args:
        folder: of the record; what observations kept is read from there.
        trajectories: of the record.
        settings: of the job.
    """
    # Imported here: torchmetrics takes seconds, and a wrong setting is named before.
    from editbench.walk.metric import ObservationMetric

    metrics = load_metrics(settings)
    results = {}
    for name, metric in metrics.items():
        if isinstance(metric, ObservationMetric):
            metric.update(read_observed(folder, metric.observation))
        else:
            metric.update(trajectories)
        results[name] = metric.compute()
    kinds = {name: (metric.version, metric.produces) for name, metric in metrics.items()}
    records.write_metrics(folder, results, kinds)
    # `refresh_metrics` compares this key, and computes the rows again where it differs.
    write_json(folder / Record.METRICS, {"key": metrics_key(settings, metrics)})


def metrics_key(settings: Settings, metrics: dict[str, Metric]) -> str:
    """Hash of what decides the rows: versions and options of the metrics, and the columns."""
    versions = {name: metric.version for name, metric in metrics.items()}
    # The name of a figure is among the labels that components do not have: a drawing changes no
    # number. Rows of other columns, written by an older version, are computed again.
    options = {name: part.config for name, part in settings.metrics.items()}
    return digest({"versions": versions, "config": options, "columns": ROW_COLUMNS})


def is_outdated(record: Record, settings: Settings) -> bool:
    """Whether the metrics of a finished record are of other options or versions than today's."""
    # A run that was skipped or failed has no trajectories.
    if record.status["status"] != "done":
        return False
    return record.metrics_key() != metrics_key(settings, load_metrics(settings))


def refresh_metrics(record: Record, settings: Settings) -> None:
    """Recompute the metrics of a finished record when options or versions have changed."""
    if is_outdated(record, settings):
        # Read first: reading compares checksums, and the update takes the seal away.
        trajectories = record.trajectories()
        config = record.config() | {"metric": settings.plain["metric"]}
        with record.updating() as folder:
            # Figures and papers of the metrics are looked up there.
            records.write_config(folder, config)
            compute_metrics(folder, trajectories, settings)
