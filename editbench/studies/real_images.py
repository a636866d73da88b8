"""Comparison of edits on real images with the same edits on generated ones, from a runs folder.

A run from inverted images is paired with the run that differs only in its starts. The table has:

- `accuracy` and `ad_at` of both, as the metrics define them. AD is at the effect `ad_effect` on both
  sides, that of the run from images; a twin that was measured at another effect has no AD;
- `distance` of both: mean distance of the starts from the target's boundary, in standard deviations
  of the bank. If the distances differ, the edits are not equally hard;
- `accuracy_true` of the real images: the share of walks that crossed while every other attribute
  had the true class of the image. It also counts what the inversion lost;
- `accuracy_seen`: the same with the classes that the judge assigned to the image itself.

A run whose search found no control fails on every start: its accuracies are 0, and it has no other
number (`editbench.report.no_control`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from rich.markup import escape
from rich.table import Table

from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import write_atomic
from editbench.base.progress import results_console
from editbench.inversion.page import print_inversion
from editbench.inversion.store import Inversion
from editbench.report.load import Results, load
from editbench.report.settings import flatten
from editbench.run.record import Record
from editbench.run.settings import NO_INVERSION

# Keys of a configuration that are equal within a pair: all that a walk depends on, except for the
# inversion.
PAIRED = (
    "generator",
    "scorer",
    "bank",
    "method",
    "target",
    "seed",
    "starts",
    "engine",
    "precision",
)
# Ending of a column -> the field of a metric's row.
FIELDS = {"": "value", "_low": "low", "_high": "high", "_n": "count"}


def compare_runs(root: Path) -> None:
    """Print the comparison, write it to real_images.csv in the folder, and describe the inversions.

    Args:
        root: runs folder with both kinds of runs.

    Raises:
        EditbenchError: no finished run starts from inverted images.
    """
    results = load(root)
    table = comparison(results)
    write_atomic(root / "real_images.csv", table.to_csv(index=False))
    _print(table)
    # Several runs may start from the same inversion, which is described once.
    for folder in dict.fromkeys(
        made["inversion"]["folder"] for made in results.provenance.values() if "inversion" in made
    ):
        try:
            print_inversion(Inversion(Path(folder)))
        # The comparison is already written, so a missing inversion is no error.
        except BadFile as error:
            print(f"inversion: {error}", file=sys.stderr)
    print(f"table {root / 'real_images.csv'}")


def comparison(results: Results) -> pd.DataFrame:
    """Compare runs from inverted images with runs from generated ones.

    Args:
        results: records of both kinds of runs.

    Returns:
        One row per run from inverted images, with the columns method, attribute, seed, setting,
        inversion and space ('-' if no finished run tells it); ad_effect, in sigmas; `real_` and
        `generated_` (NaN if there is no such run) accuracy and ad_at, each with `_low`, `_high` and
        `_n`, and distance; accuracy_true and accuracy_seen.

    Raises:
        EditbenchError: no finished run starts from inverted images.
    """
    results = results.with_failures()
    measured = (results.runs["status"] == "done") | (results.runs["no_control"] > 0)
    runs = results.runs[measured].to_dict("records")
    real = [run for run in runs if _from_images(run, results)]
    if all(run["status"] != "done" for run in real):
        raise EditbenchError(
            f"no finished run of {results.root} starts from inverted images: run "
            "`editbench run -m experiment=real_images` first"
        )
    others = {_key(run, results): run for run in runs if not _from_images(run, results)}
    rows = []
    for run in real:
        config = results.configs[run["run_id"]]
        row: dict[str, Any] = {
            "method": run["label"],
            "attribute": run["attribute"],
            "seed": run["seed"],
            "setting": run["setting"],
            "inversion": config["inversion"]["name"],
            "space": _space(run, real, results),
        }
        # A run without a counterpart stays in the table, for its own numbers.
        twin = others.get(_key(run, results))
        row["ad_effect"] = _effect(results, run)
        for name, one in (("real", run), ("generated", twin)):
            row |= _value(results, one, name, "accuracy")
            row |= _value(results, one, name, "ad_at", row["ad_effect"])
            row[f"{name}_distance"] = np.nan
            if one is not None and one["status"] == "done":
                row[f"{name}_distance"] = _distance(results.root / one["run_id"])
        # Only for the run from images, since generated starts have no true classes.
        if run["status"] == "done":
            row |= _against_images(results.root / run["run_id"])
        rows.append(row)
    table = pd.DataFrame(rows)
    failed = np.array([run["status"] != "done" for run in real])
    for column in ("accuracy_true", "accuracy_seen"):
        # Of images without known classes, accuracy_true is NaN for all runs.
        known = table.groupby("setting")[column].transform("count") > 0
        table.loc[failed & known, column] = 0.0
    return table


def _from_images(run: dict[Any, Any], results: Results) -> bool:
    """Whether a run's walks start from inverted images."""
    inversion = results.configs[run["run_id"]].get("inversion", {})
    return inversion.get("name", NO_INVERSION) != NO_INVERSION


def _space(run: dict[Any, Any], real: Sequence[dict[Any, Any]], results: Results) -> str:
    """The space of the inversion of a run.

    Args:
        run: a run from inverted images.
        real: all such runs. Only finished ones have opened the inversion, and those of a setting
            have the same one.
        results: records of the runs.
    """
    for one in (run, *(other for other in real if other["setting"] == run["setting"])):
        inversion = results.provenance[one["run_id"]].get("inversion", {})
        if "space" in inversion:
            return str(inversion["space"])
    return "-"


def _key(run: dict[Any, Any], results: Results) -> str:
    """A text that is equal for two runs that differ only in their starts."""
    flat = flatten(results.configs[run["run_id"]])
    # Older records do not name the precision, which was fp32.
    kept = {"precision": "fp32"} | {
        name: value for name, value in flat.items() if name.split(".")[0] in PAIRED
    }
    # Of the networks, the bank and the method's source.
    hashes = results.provenance[run["run_id"]].get("hashes")
    return json.dumps([run["attribute"], kept, hashes], sort_keys=True, default=str)


def _rows_of(results: Results, run: dict[Any, Any] | None, metric: str) -> pd.DataFrame:
    """The rows of a metric of a run; none if there is no run."""
    run_id = None if run is None else run["run_id"]
    return results.rows[(results.rows["run_id"] == run_id) & (results.rows["metric"] == metric)]


def _effect(results: Results, run: dict[Any, Any]) -> float:
    """The effect at which a run measured AD, in sigmas; NaN if it did not."""
    found = _rows_of(results, run, "ad_at")["x"]
    return float(found.iloc[0]) if len(found) else np.nan


def _value(
    results: Results, run: dict[Any, Any] | None, side: str, metric: str, x: float = np.nan
) -> dict[str, float]:
    """Value, interval and count of a metric; NaN if it was not measured.

    Args:
        results: records of the runs.
        run: whose metric it is; None if there is none.
        side: 'real' or 'generated', with which the names of the columns begin.
        metric: name of the metric.
        x: of the row; NaN for a metric without one.

    Returns:
        Column -> number, for each of FIELDS.
    """
    found = _rows_of(results, run, metric)
    # The other run may have been measured at another effect, which is another number.
    found = found[np.isclose(found["x"], x, equal_nan=True)]
    values = {}
    for ending, name in FIELDS.items():
        values[f"{side}_{metric}{ending}"] = found[name].iloc[0] if len(found) else np.nan
    return values


def _distance(folder: Path) -> float:
    """Mean distance of a record's starts from the boundary of the target class, in sigmas."""
    walks = Record.read(folder).trajectories()
    # Step 0 is the unedited start.
    begins = np.flatnonzero(walks.table["step"].to_numpy() == 0)
    target = torch.tensor(walks.table["target"].to_numpy(np.int64)[begins])
    # For a binary attribute, both classes have the same column, with opposite signs.
    column, sign = (np.asarray(part) for part in walks.attributes.column(walks.attribute, target))
    return float((-sign * walks.log_odds[begins, column] / walks.sigma[column]).mean())


def _against_images(folder: Path) -> dict[str, float]:
    """accuracy_true and accuracy_seen of one record."""
    record = Record.read(folder)
    walks = record.trajectories()
    try:
        images = record.originals().set_index("start")
    # Errors of a truncated or foreign file, and of a table without the column `start`.
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise BadFile(
            f"{folder / Record.ORIGINALS} is not readable ({error}); delete {folder} and run the "
            "job again"
        ) from error
    attributes = walks.attributes
    table = walks.table
    starts = table.loc[table["step"] == 0, "start"].to_numpy()
    # As in the metric of accuracy, a walk that diverged when it crossed is no success.
    stops = np.flatnonzero(table["stopped"].to_numpy(bool) & table["finite"].to_numpy(bool))
    # One row per walk that crossed, in the order of the walks.
    own = images.loc[table["start"].to_numpy()[stops]]
    # The target attribute is changed on purpose.
    others = [k for k, name in enumerate(attributes.names) if name != walks.attribute]
    then = walks.labels[stops][:, others]
    columns = [f"truth:{attributes.names[k]}" for k in others]
    truth = own[columns].to_numpy()
    # -1 is an unknown class, as for photographs. A share of the known ones would be over other
    # images than `accuracy`.
    known = bool((images[columns] >= 0).all(axis=None))
    logits = own[[f"real_judge:{name}" for name in attributes.columns()]].to_numpy(np.float64)
    seen = attributes.labels(torch.tensor(logits)).numpy()[:, others]
    return {
        # Divided by all starts, since walks that never crossed are failures here too.
        "accuracy_true": float((then == truth).all(1).sum() / len(starts)) if known else np.nan,
        "accuracy_seen": float((then == seen).all(1).sum() / len(starts)),
    }


def _print(table: pd.DataFrame) -> None:
    out = results_console()
    shown = Table(
        "method",
        "attribute",
        "space",
        "accuracy, real",
        "generated",
        "real, to truth",
        "to image",
        "AD, real",
        "generated",
        "distance, real",
        "generated",
        "n real",
        "n gen.",
        box=None,
        title="Edits of real and of generated images",
    )
    # No mean over spaces, since their inversions differ in quality.
    groups = table.groupby(["method", "setting", "space"], sort=False)
    means = [
        {"method": key[0], "attribute": "mean", "space": key[2]} | means_of(part)
        for key, part in groups
    ]
    parts: tuple[list[dict[Any, Any]], ...] = (table.to_dict("records"), means)
    for rows in parts:
        for row in rows:
            shown.add_row(
                *(escape(str(row[name])) for name in ("method", "attribute", "space")),
                *(
                    _text(row[name])
                    for name in (
                        "real_accuracy",
                        "generated_accuracy",
                        "accuracy_true",
                        "accuracy_seen",
                        "real_ad_at",
                        "generated_ad_at",
                        "real_distance",
                        "generated_distance",
                    )
                ),
                *(_text(row[name], 0) for name in ("real_accuracy_n", "generated_accuracy_n")),
            )
        shown.add_section()
    out.print(shown)


def means_of(rows: pd.DataFrame) -> dict[str, float]:
    """Means over attributes and seeds.

    Rows without a counterpart are left out if any row has one. AD is averaged over the rows that
    have it on both sides, if any has.
    """
    values = rows.select_dtypes("number").copy()
    # Both sides must be averaged over the same attributes.
    paired = values["generated_accuracy"].notna()
    if paired.any():
        values = values[paired]
    # AD may be missing on one side if too few walks reach the effect.
    both = values[["real_ad_at", "generated_ad_at"]].notna().all(axis=1)
    if both.any():
        values.loc[~both, ["real_ad_at", "generated_ad_at"]] = np.nan
    return {str(name): float(value) for name, value in values.mean().items()}


def _text(value: float, digits: int = 3) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"
