"""The metrics of a record: computed when its job ends, and again if they have changed."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from editbench.base.errors import (
    EditbenchError,
    Unsupported,
    WrongType,
    at_line,
    frames_of,
    one_line,
)
from editbench.base.files import digest, write_atomic, write_json
from editbench.base.identity import code_of, content
from editbench.base.user_code import is_ours
from editbench.base.validation import load_target
from editbench.run import record as records
from editbench.run.component import Component
from editbench.run.loading import load_metrics
from editbench.run.record import Record
from editbench.run.settings import Settings
from editbench.walk.observation import DuringWalk, read_observed
from editbench.walk.rows import ROW_COLUMNS
from editbench.walk.trajectory import Trajectories

if TYPE_CHECKING:
    from editbench.walk.metric import Metric, MetricResult
    from editbench.walk.observation import Observation, ObservationContext


# Keys of status.json about the outcome.
OUTCOME = ("status", "reason", Record.WALKED, Record.UNOBSERVED)


class MetricFailed(EditbenchError):
    """A metric raised an error, which is the cause."""


class Measured(NamedTuple):
    """Results of a record's metrics that are not written yet.

    Attributes:
        tables: name of a file -> its content.
        key: `metrics_key`.
        parts: `part_hashes`.
    """

    tables: dict[str, bytes]
    key: str
    parts: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write rows and samples of every metric to the folder of the record."""
        for name, table in self.tables.items():
            write_atomic(folder / name, table)
        # `refresh_metrics` compares this key and recomputes the rows if it differs.
        write_json(folder / Record.METRICS, {"key": self.key, "parts": self.parts})


def check_observed(
    settings: Settings, observations: Mapping[str, Observation], context: ObservationContext
) -> None:
    """Let every metric check, before the fit, that its options fit the observation.

    Args:
        settings: of the job.
        observations: of the job, by name.
        context: what they may use.

    Raises:
        EditbenchError: an option of a metric is wrong.
    """
    from editbench.walk.metric import ObservationMetric

    for metric in load_metrics(settings).values():
        if isinstance(metric, ObservationMetric) and metric.observation in observations:
            metric.check_observation(observations[metric.observation], context)


def compute_metrics(folder: Path, trajectories: Trajectories, settings: Settings) -> Measured:
    """Compute every metric that the settings name.

    Args:
        folder: of the record, from which the observations' results are read.
        trajectories: of the record.
        settings: of the job.

    Raises:
        MetricFailed: a metric raised an error.
    """
    # Imported here: torchmetrics takes seconds, and a wrong setting is named before.
    from editbench.walk.metric import UNDECLARED, MetricResult, ObservationMetric

    metrics = load_metrics(settings)
    measured = []
    for name, metric in metrics.items():
        try:
            if isinstance(metric, ObservationMetric):
                metric.update(read_observed(folder, metric.observation))
                result = metric.compute()
            elif set(metric.reads) <= set(trajectories.table.columns):
                metric.update(trajectories)
                result = metric.compute()
            else:
                result = _not_measured(metric, trajectories)
            if not isinstance(result, MetricResult):
                raise WrongType(
                    f"{type(metric).__name__}.compute must return a MetricResult, as returned by "
                    f"ResultBuilder().result(), not {type(result).__name__}"
                )
            measured.append(records.labelled(name, metric, result))
        except Unsupported:
            raise
        except EditbenchError as error:
            raise MetricFailed(f"metric {name}: {error}") from error
        except (Exception, SystemExit) as error:
            told = f"metric {name}: {one_line(error)}{_own_line(metric, error)}"
            # Perhaps a column that pandas does not find, since no observation has added it.
            if isinstance(error, KeyError) and not isinstance(metric, ObservationMetric):
                told += f"; {UNDECLARED}"
            raise MetricFailed(told) from error
    tables = records.metric_tables(measured)
    return Measured(tables, metrics_key(settings, metrics), part_hashes(settings, metrics))


def _not_measured(metric: Metric, trajectories: Trajectories) -> MetricResult:
    """One row without a number, of a metric whose columns no observation of the job measured."""
    from editbench.walk.metric import NAN, ResultBuilder

    lacking = [name for name in metric.reads if name not in trajectories.table]
    out = ResultBuilder()
    note = (
        f"no observation measured '{', '.join(lacking)}': run the job with the observation that "
        "returns it, observation=[NAME]"
    )
    out.add(next(iter(metric.produces)), NAN, 0, note=note)
    return out.result()


def _own_line(metric: Metric, error: BaseException) -> str:
    """The last line of the metric's own file in an error's traceback, in brackets; '' if none."""
    # None for a class that has no file, such as one of an interpreter's prompt.
    own = getattr(sys.modules.get(type(metric).__module__), "__file__", None)
    frames = frames_of(error, lambda file: file == own)
    return at_line(frames[-1]) if frames else ""


def metrics_key(settings: Settings, metrics: dict[str, Metric]) -> str:
    """Hash of what determines the rows: versions and options of the metrics, and the columns.

    For a user's own metrics the source is included, since it changes often during development
    without a new version.

    Args:
        settings: of the job; only the options of its metrics count.
        metrics: the same metrics as objects, by name.
    """
    versions = {name: metric.version for name, metric in metrics.items()}
    # The name of a figure is among the labels that components do not have: a drawing changes no
    # number. Rows of other columns, written by an older version, are computed again.
    options = {name: part.config for name, part in settings.metrics.items()}
    key = {"versions": versions, "config": options, "columns": ROW_COLUMNS}
    own = {name: config for name, config in options.items() if not is_ours(config["_target_"])}
    if own:
        key["code"] = code_of(own)
    return digest(key)


def part_hashes(settings: Settings, metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Hashes of what the numbers of each metric were computed with, see `Record.part_hashes`.

    Args:
        settings: of the job.
        metrics: as objects, by name.
    """
    # Imported here for the reason in `compute_metrics`.
    from editbench.walk.metric import ObservationMetric

    found = {}
    for name, metric in metrics.items():
        parts = [metric.version, _described(settings.metrics[name])]
        if isinstance(metric, ObservationMetric) and metric.observation in settings.observations:
            parts.append(_described(settings.observations[metric.observation]))
        found[f"metric.{name}"] = digest(parts)
    # Any metric may read the columns of these.
    for name, part in settings.observations.items():
        kind = load_target(part.key, part.target)
        if inspect.isclass(kind) and issubclass(kind, DuringWalk):
            found[f"observation.{name}"] = digest(_described(part))
    return found


def _described(part: Component) -> list[object]:
    """The options of a metric or observation, and the source of a user's own.

    The project's own classes have versions, or their source is part of the identity of a run.
    """
    code = "" if is_ours(part.target) else code_of(part.config)
    return [content(part.config), code]


def is_outdated(record: Record, settings: Settings) -> bool:
    """Whether the metrics of a finished record have other options or versions than the current.

    Args:
        record: of an earlier run of the job. Without trajectories it is never outdated.
        settings: of the job now.
    """
    # Other runs that were skipped or failed have no trajectories.
    if record.status["status"] != "done" and not record.walked:
        return False
    return record.metrics_key() != metrics_key(settings, load_metrics(settings))


def refresh_metrics(record: Record, settings: Settings) -> tuple[Record, list[str]]:
    """Recompute the metrics of a finished record if options or versions have changed.

    Args:
        record: of an earlier run of the job; its folder is rewritten.
        settings: of the job now. Only the metrics of the record's configuration are replaced by
            theirs.

    Returns:
        The updated record (done, even if a metric had failed before), and the metrics whose rows
        were removed because the settings no longer include them.

    Raises:
        EditbenchError: a metric failed; the record stays as it was.
    """
    if not is_outdated(record, settings):
        return record, []
    removed: list[str] = []
    trajectories = record.trajectories()
    config = record.config()
    if record.has(Record.ROWS):
        removed = [name for name in config.get("metric") or {} if name not in settings.metrics]
    config["metric"] = settings.plain["metric"]
    measured = compute_metrics(record.folder, trajectories, settings)
    # The log describes the earlier failure of a record that was only walked.
    with record.updating(removed=[Record.LOG]) as place:
        # Figures and papers of the metrics are looked up there.
        records.write_config(place, config)
        measured.write(place)
        if record.walked:
            about = {key: value for key, value in record.status.items() if key not in OUTCOME}
            records.write_status(place, "done", **about)
    return Record.read(record.folder), removed
