"""Edits on real images beside the same edits on generated ones, from the records of a runs folder.

A run from inverted images is paired with the run of the same configuration and networks but for its
starts. `accuracy` and `ad_at` are the metrics' own. `distance`: how far the starts are from the
target's boundary, in the bank's standard deviations, a mean: where it differs, so does how hard the
edits are. `accuracy_true` asks more of an edit on a real
image: the walk crossed, and every other attribute then has the image's true class, so that what the
inversion lost counts too; `accuracy_seen`: the class that the judge saw in the image itself.
"""

from __future__ import annotations

import json
import sys
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

# Keys of a configuration
# All that a walk depends on but for the inversion, which is what differs within a pair.
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
METRICS = ("accuracy", "ad_at")


def compare_runs(root: Path) -> int:
    """Print and write the comparison (real_images.csv in the folder), then what the inversions
    are.
    """
    # One folder holds both kinds of runs, so that they are of the same networks and fits.
    results = load(root)
    table = comparison(results)
    write_atomic(root / "real_images.csv", table.to_csv(index=False))
    _print(table)
    # Several runs start from one inversion; it is told once.
    for folder in dict.fromkeys(
        made["inversion"]["folder"] for made in results.provenance.values() if "inversion" in made
    ):
        try:
            print_inversion(Inversion(Path(folder)))
        # The comparison is written already; a missing inversion costs its part alone.
        except BadFile as error:
            print(f"inversion: {error}", file=sys.stderr)
    print(f"table {root / 'real_images.csv'}")
    return 0


def comparison(results: Results) -> pd.DataFrame:
    """One row a run from inverted images: method, attribute, setting, space, then real_*,
    generated_* (NaN where there is no such run) with their n and intervals, accuracy_true and
    accuracy_seen.

    Raises EditbenchError when no run starts from inverted images.
    """
    runs = results.runs[results.runs["status"] == "done"]
    real = [
        run for run in runs.to_dict("records") if "inversion" in results.provenance[run["run_id"]]
    ]
    if not real:
        raise EditbenchError(
            f"no finished run of {results.root} starts from inverted images: run "
            "`editbench run -m experiment=real_images` first"
        )
    # Runs from the bank's own samples have no inversion in their provenance.
    others = {
        _key(run, results): run["run_id"]
        for run in runs.to_dict("records")
        if "inversion" not in results.provenance[run["run_id"]]
    }
    rows = []
    for run in real:
        config = results.configs[run["run_id"]]
        row: dict[str, Any] = {
            "method": run["label"],
            "attribute": run["attribute"],
            "seed": run["seed"],
            "setting": run["setting"],
            "inversion": config["inversion"]["name"],
            "space": results.provenance[run["run_id"]]["inversion"].get("space", "-"),
        }
        # A run from images without a twin stays in the table: its own numbers are worth seeing.
        twin = others.get(_key(run, results))
        for name, run_id in (("real", run["run_id"]), ("generated", twin)):
            for metric in METRICS:
                row |= {
                    f"{name}_{metric}{key}": value
                    for key, value in _value(results, run_id, metric).items()
                }
            row[f"{name}_distance"] = _distance(results.root / run_id) if run_id else np.nan
        # Only of the run from images: generated starts have neither an image nor true classes.
        rows.append(row | _against_images(results.root / run["run_id"]))
    return pd.DataFrame(rows)


def _key(run: dict[Any, Any], results: Results) -> str:
    """What a run depends on but for what its walks start from."""
    flat = flatten(results.configs[run["run_id"]])
    # A record that does not name the precision was made with the default.
    kept = {"precision": "fp32"} | {
        name: value for name, value in flat.items() if name.split(".")[0] in PAIRED
    }
    hashes = results.provenance[run["run_id"]].get(
        "hashes"
    )  # of networks, bank and the method's source
    return json.dumps([run["attribute"], kept, hashes], sort_keys=True, default=str)


def _value(results: Results, run_id: str | None, metric: str) -> dict[str, float]:
    found = results.rows[(results.rows["run_id"] == run_id) & (results.rows["metric"] == metric)]
    if found.empty:
        return {"": np.nan, "_low": np.nan, "_high": np.nan, "_n": np.nan}
    first = found.iloc[0]
    return {"": first["value"], "_low": first["low"], "_high": first["high"], "_n": first["count"]}


def _distance(folder: Path) -> float:
    """Mean over the starts of a record of the log-odds to go until the target class, in sigmas."""
    walks = Record.read(folder).trajectories()
    # At step 0, before any edit: how far the target's boundary is from the start.
    begins = np.flatnonzero(walks.table["step"].to_numpy() == 0)
    target = torch.tensor(walks.table["target"].to_numpy(np.int64)[begins])
    # For a binary attribute one column serves both classes, with opposite signs.
    column, sign = (np.asarray(part) for part in walks.attributes.column(walks.attribute, target))
    return float((-sign * walks.log_odds[begins, column] / walks.sigma[column]).mean())


def _against_images(folder: Path) -> dict[str, float]:
    """accuracy_true and accuracy_seen of one record."""
    walks = Record.read(folder).trajectories()
    try:
        images = Record.read(folder).originals().set_index("start")
    # What a cut or foreign parquet raises, and a table without the column `start`.
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise BadFile(
            f"{folder / Record.ORIGINALS} is not readable ({error}); delete {folder} and run the "
            "job again"
        ) from error
    attributes = walks.attributes
    table = walks.table
    starts = table.loc[table["step"] == 0, "start"].to_numpy()
    # A walk that diverged as it crossed is no success, as in the metric of accuracy.
    stops = np.flatnonzero(table["stopped"].to_numpy(bool) & table["finite"].to_numpy(bool))
    # One row a walk that crossed, in the walks' order.
    own = images.loc[table["start"].to_numpy()[stops]]
    # The target is what the edit changed on purpose.
    others = [k for k, name in enumerate(attributes.names) if name != walks.attribute]
    then = walks.labels[stops][:, others]
    columns = [f"truth:{attributes.names[k]}" for k in others]
    truth = own[columns].to_numpy()
    # -1 marks a class that is not known, as for photographs; a share of the known would be of other
    # images than `accuracy`.
    known = bool((images[columns] >= 0).all(axis=None))
    logits = own[[f"real_judge:{name}" for name in attributes.columns()]].to_numpy(np.float64)
    seen = attributes.labels(torch.tensor(logits)).numpy()[:, others]
    return {
        # Divided by all starts: walks that never crossed are failures here as well.
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
    # A mean over spaces would mix inversions of different faithfulness.
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
    """Means over attributes and seeds; of a pair of columns over the rows that have both, where any
    has.
    """
    values = rows.select_dtypes("number").copy()
    # Means over other attributes on either side would compare attributes.
    paired = values["generated_accuracy"].notna()
    if paired.any():
        values = values[paired]
    # AD may be missing on one side where too few walks reach the effect.
    both = values[["real_ad_at", "generated_ad_at"]].notna().all(axis=1)
    if both.any():
        values.loc[~both, ["real_ad_at", "generated_ad_at"]] = np.nan
    return {str(name): float(value) for name, value in values.mean().items()}


def _text(value: float, digits: int = 3) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"
