"""Export of records to experiment trackers: Weights & Biases, MLflow, TensorBoard.

Each record becomes a run. Its configuration becomes the parameters, its numbers the metrics
(`accuracy`, `accuracy_low`, `accuracy_high`, as in table.csv), and its curves metrics with steps.
Everything is written to files, and nothing leaves the machine unless the tracker's own variable
(WANDB_MODE, MLFLOW_TRACKING_URI) says so. Exporting a record again replaces its earlier export.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from editbench.base.errors import EditbenchError
from editbench.base.files import create_folder
from editbench.report.load import COST_KEYS, Results, require_readable
from editbench.report.settings import flatten
from editbench.report.tables import column_name

# Steps of MLflow and TensorBoard are integers: thousandths of x, which is an effect in sigmas.
STEPS = 1000
LONGEST_ID = 64  # characters of an id in Weights & Biases; a record's name ends with its hash
# Limits of one request to MLflow.
BATCH_METRICS = 1000
BATCH_PARAMETERS = 100
LONGEST_PARAMETER = 500  # characters; older servers reject more
LONGEST_TAG = 5000  # characters


@dataclass(frozen=True)
class ExportedRun:
    """A record in the form that trackers need.

    Args:
        name: of the record's folder.
        about: method, attribute, generator, seed, status, reason, and `left_out` (numbers with a
            note).
        parameters: the flat configuration, without options that change no number.
        metrics: name -> number; only finite ones.
        curves: name -> (x, number), sorted by x.
    """

    name: str
    about: dict[str, str]
    parameters: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Exporter:
    """A tracker.

    Args:
        title: its name.
        packages: packages that must be installed, by the names under which they are imported.
        write: (runs, folder, name of the experiment) -> a line that says where they were written.
    """

    title: str
    packages: tuple[str, ...]
    write: Callable[[Sequence[ExportedRun], Path, str], str]


def export(results: Results, names: Sequence[str], out: Path) -> list[str]:
    """Write the records for trackers.

    Args:
        results: the records, with seeds not pooled.
        names: of EXPORTERS.
        out: folder of the files; each tracker gets a subfolder.

    Returns:
        One line per tracker that says where its files are, and one per record that cannot be read.

    Raises:
        EditbenchError: a package is missing, or no record is readable.
    """
    require_readable(results)
    # All packages are checked before anything is written.
    for name in names:
        require(name)
    runs = list(exported_runs(results))
    experiment = results.root.resolve().name
    lines = []
    for name in names:
        folder = out / name
        create_folder(folder)
        lines.append(f"{name:11} {EXPORTERS[name].write(runs, folder, experiment)}")
    return [*lines, *(f"broken: {one.name}: {one.reason}" for one in results.problems)]


def require(name: str) -> None:
    """Raise EditbenchError, with a command to install it, if a tracker's package is missing."""
    missing = [package for package in EXPORTERS[name].packages if not is_installed(package)]
    if missing:
        raise EditbenchError(
            f"--{name} needs {' and '.join(missing)}: pip install 'editbench[{name}]'"
        )


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    spec = find_spec(package)
    # A folder `wandb` that contains runs is importable as a namespace package, without an origin.
    return spec is not None and spec.origin is not None


def exported_runs(results: Results) -> Iterator[ExportedRun]:
    """All records of a folder, including those that were skipped or failed."""
    rows = dict(list(results.rows.groupby("run_id")))
    for run in results.run_records:
        run_id = str(run["run_id"])
        about = {
            key: str(run[key])
            for key in ("method", "attribute", "generator", "seed", "status", "reason")
            if str(run[key])
        }
        found = ExportedRun(run_id, about, parameters_of(results.configs.get(run_id, {})))
        # Some trackers reject NaN.
        found.metrics.update({cost: run[cost] for cost in COST_KEYS if math.isfinite(run[cost])})
        if run_id in rows:
            add_rows(found, rows[run_id])
        yield found


def parameters_of(config: dict[str, Any]) -> dict[str, str]:
    """The flat configuration as text."""
    flat = flatten(config)
    return {
        key: value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
        for key, value in flat.items()
        if key
    }


def add_rows(run: ExportedRun, rows: pd.DataFrame) -> None:
    """Add the rows of all metrics to a run.

    A number with a note is left out, since trackers cannot show the note; its name is listed.

    Args:
        run: it is changed: scalars are added to its metrics, rows with an x to its curves, and the
            names of what is left out to `about`.
        rows: of this run alone.
    """
    left_out = []
    for row in rows.sort_values("x").to_dict("records"):
        name = plain_name(column_name(row))
        is_curve = not pd.isna(row["x"])
        if row["note"]:
            place = f" at {row['x']:g}" if is_curve else ""
            left_out.append(f"{name}{place}: {row['note']}")
            continue
        for end, key in (("", "value"), ("_low", "low"), ("_high", "high")):
            value = float(row[key])
            if not math.isfinite(value):
                continue
            if is_curve:
                run.curves.setdefault(name + end, []).append((float(row["x"]), value))
            else:
                run.metrics[name + end] = value
    if left_out:
        run.about["left_out"] = "; ".join(left_out)


def plain_name(text: str) -> str:
    """A name with characters that every tracker accepts: 'kid_up inception-07aa n 1000'."""
    return " ".join(re.sub(r"[^A-Za-z0-9_./-]+", " ", text.replace("@", "-")).split())


def step_of(x: float) -> int:
    """The step of a point on a curve."""
    return round(STEPS * x)


# -- Weights & Biases ------------------------------------------------------------------------------
def write_wandb(runs: Sequence[ExportedRun], folder: Path, experiment: str) -> str:
    """Write runs of Weights & Biases, offline unless WANDB_MODE says otherwise.

    Args:
        runs: to write; earlier files of the same runs are replaced.
        folder: must be called `wandb`, since the tracker makes a folder of that name.
        experiment: name of the project.

    Returns:
        A line that says where the runs are.
    """
    import wandb

    mode: Any = os.environ.get("WANDB_MODE", "offline")
    for run in runs:
        name = run.name[-LONGEST_ID:]
        for earlier in folder.glob(f"*run-*-{name}"):
            shutil.rmtree(earlier)
        target = wandb.init(
            project=experiment,
            id=name,
            name=run.name,
            group=run.about["method"],
            job_type=run.about["attribute"],
            tags=[run.about["status"], run.about["generator"]],
            notes=run.about.get("reason") or run.about.get("left_out"),
            config=run.parameters,
            dir=str(folder.parent),  # wandb makes a folder `wandb` there
            mode=mode,
            # The records were made earlier, so nothing about this process should be logged.
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True
            ),
        )
        for curve, points in run.curves.items():
            # Each curve has its own axis, in the unit of x.
            target.define_metric(curve, step_metric=f"{curve}/x")
            for x, value in points:
                target.log({curve: value, f"{curve}/x": x})
        target.summary.update(run.metrics)
        target.finish(exit_code=int(run.about["status"] == "failed"))
    # The service continues to write after `finish` has returned; this waits for it.
    wandb.teardown()
    if mode == "offline":
        return f"{len(runs)} runs in {folder}; to upload: wandb sync {folder}/offline-run-*"
    return f"{len(runs)} runs, project {experiment}, WANDB_MODE={mode}"


# -- MLflow ----------------------------------------------------------------------------------------
def write_mlflow(runs: Sequence[ExportedRun], folder: Path, experiment: str) -> str:
    """Write runs of an MLflow experiment, to a database file or the server MLFLOW_TRACKING_URI.

    Args:
        runs: to write; earlier runs of the same names are deleted from the experiment.
        folder: of the database file and the files of its runs.
        experiment: its name; it is created if it does not exist.

    Returns:
        A line that says where the runs are.
    """
    import mlflow
    from mlflow.entities import Metric, Param

    database = f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    address = os.environ.get("MLFLOW_TRACKING_URI") or database
    client = mlflow.MlflowClient(tracking_uri=address, registry_uri=address)
    known = client.get_experiment_by_name(experiment)
    if known is None:
        # Files of runs go next to the database, not to the current folder.
        place = (folder / "files").resolve().as_uri() if address == database else None
        number = client.create_experiment(experiment, artifact_location=place)
    else:
        number = known.experiment_id
    for run in runs:
        # MLflow chooses the id of a run itself, so an earlier export is found by this tag.
        for earlier in client.search_runs([number], f"tags.editbench_run = '{run.name}'"):
            client.delete_run(earlier.info.run_id)
        about = {key: value[:LONGEST_TAG] for key, value in run.about.items()}
        target = client.create_run(
            number, run_name=run.name, tags=about | {"editbench_run": run.name}
        )
        made = target.info.run_id
        time = target.info.start_time
        metrics = [Metric(name, value, time, 0) for name, value in run.metrics.items()]
        for name, points in run.curves.items():
            metrics += [Metric(name, value, time, step_of(x)) for x, value in points]
        parameters = [
            Param(key, value[:LONGEST_PARAMETER]) for key, value in run.parameters.items()
        ]
        for begin in range(0, len(metrics), BATCH_METRICS):
            client.log_batch(made, metrics=metrics[begin : begin + BATCH_METRICS])
        for begin in range(0, len(parameters), BATCH_PARAMETERS):
            client.log_batch(made, params=parameters[begin : begin + BATCH_PARAMETERS])
        failed = run.about["status"] == "failed"
        client.set_terminated(made, "FAILED" if failed else "FINISHED")
    return f"{len(runs)} runs; to look at them: mlflow ui --backend-store-uri {address}"


# -- TensorBoard -----------------------------------------------------------------------------------
def write_tensorboard(runs: Sequence[ExportedRun], folder: Path, experiment: str) -> str:
    """Write event files, one folder per run, with the configuration as hyperparameters.

    Args:
        runs: to write; their earlier folders are deleted.
        folder: of the folders of the runs.
        experiment: not used, since TensorBoard has no name for it.

    Returns:
        A line that says where the runs are.
    """
    from torch.utils.tensorboard import SummaryWriter

    for run in runs:
        shutil.rmtree(folder / run.name, ignore_errors=True)
        with SummaryWriter(str(folder / run.name)) as writer:
            about = {f"run/{key}": value for key, value in run.about.items()}
            # '.' writes the hyperparameters, with the numbers, to the folder of the run.
            writer.add_hparams(run.parameters | about, run.metrics, run_name=".")
            for name, points in run.curves.items():
                for x, value in points:
                    writer.add_scalar(name, value, step_of(x))
    return f"{len(runs)} runs; to look at them: tensorboard --logdir {folder}"


EXPORTERS = {
    "wandb": Exporter("Weights & Biases", ("wandb",), write_wandb),
    "mlflow": Exporter("MLflow", ("mlflow", "sqlalchemy", "alembic"), write_mlflow),
    "tensorboard": Exporter("TensorBoard", ("tensorboard",), write_tensorboard),
}
