"""The numbers of the report: one row a method and attribute, and one row a method.

These frames hold plain numbers; editbench.report.cells turns them into text. A LaTeX writer would
start from the same two: `main_table`, `summary`, and the columns of `cells.COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from editbench.report.load import COSTS, Results
from editbench.walk.figures import FEWEST, RANDOM, is_random
from editbench.walk.metric import KEY_COLUMNS, key_of, written_key

AT_EFFECT = "ad_at"
FIRST = ("accuracy", "success_rate", AT_EFFECT, "off_target_flips", "path_length")
IDENTITY = ("setting", "method", "attribute", "status")
# Last, since a reader of the table wants numbers first.
REST = (
    "generator",
    "scorer",
    "bank",
    "judged_in",
    "leaking",
    "seed",
    "experiment",
    "variant_of",
    "run_id",
    "reason",
)


class Quantity(NamedTuple):
    """What a column of `main_table` holds.

    Attributes:
        metric: name of the metric rows.
        better: whether higher is better (None: neither, or unknown).
    """

    metric: str
    better: bool | None = None


def main_table(results: Results) -> pd.DataFrame:
    """One row a run.

    A metric with several x is a curve and is left out, but for AD at matched effect: there the x
    that most runs share is taken (the nearest to 1 in a tie).

    Returns:
        Columns setting, method (with its variant), attribute, status; for every scalar `name` (see
        `column_name`), `name_low`, `name_high` (95 % interval), NaN where it has none, and
        `name_note` (why it should not be read); ad_at_effect (sigmas), n (starts), learned (AUC of
        what the method learnt), costs, then what the run was.
    """
    # Once for all runs: which effect most runs share is a question to all of them.
    scalars = _scalars(results.rows)
    # The main numbers have their columns even where no run has them, so that code can rely on them.
    names = [*FIRST, *sorted(set(scalars["column"]) - set(FIRST))]
    records = []
    for run in results.runs.to_dict("records"):
        mine = scalars[scalars["run_id"] == run["run_id"]]
        rows = {row["column"]: row for row in mine.to_dict("records")}
        record = {
            "setting": run["setting"],
            "method": run["label"],
            "attribute": run["attribute"],
            "status": run["status"],
        }
        for name in names:
            # A run that was skipped or failed has a row of the table, without numbers.
            row = rows.get(name, {})
            record |= {
                name: row.get("value", np.nan),
                f"{name}_low": row.get("low", np.nan),
                f"{name}_high": row.get("high", np.nan),
                f"{name}_note": row.get("note", ""),
            }
        # Accuracy counts every start; other metrics may count only those that crossed.
        counts = [rows[name]["count"] for name in ("accuracy", *names) if name in rows]
        record |= {
            "ad_at_effect": rows.get(AT_EFFECT, {}).get("x", np.nan),
            "n": counts[0] if counts else np.nan,
        }
        # A mean over a few starts that got that far would be read as one over all.
        ad_n = rows.get(AT_EFFECT, {}).get("count", FEWEST)
        if ad_n < FEWEST and not record[f"{AT_EFFECT}_note"]:
            record[f"{AT_EFFECT}_note"] = f"fewer than {FEWEST} starts reach this effect"
        record |= {name: run[name] for name in ("learned", *COSTS, "fit_cached", "seconds")}
        records.append(
            record
            | {name: run[name] for name in REST if name in run}
            # The label tells variants apart; the plain name finds the floor among them.
            | {"variant_of": run["method"]}
        )
    columns = [
        *IDENTITY,
        *(name + end for name in names for end in ("", "_low", "_high", "_note")),
        "ad_at_effect",
        "n",
        "learned",
        *COSTS,
        "fit_cached",
        "seconds",
        *REST,
    ]
    table = pd.DataFrame(records, columns=columns)
    return table.sort_values(
        ["setting", "attribute", "method"], key=_random_last, ignore_index=True
    )


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a method: means over the attributes it serves; best accuracy first, the random floor
    last.

    Columns: setting, method, served, asked (attributes), accuracy, accuracy_common (over the
    `common` attributes that every method serves), success_rate, ad_at (over the `ad_at_served`
    attributes on which it is readable, without a note, for every method but the floor: all are
    averaged over the same), off_target_flips, path_length, fit_seconds, edits_per_second,
    generator_calls, labels_used, n, learned.
    """
    done = table[(table["status"] == "done") & table["accuracy"].notna()]
    # A method that serves only easy attributes would lead a plain mean.
    serving = done.groupby("attribute")["method"].nunique()
    common = set(serving.index[serving == done["method"].nunique()])
    # A value with a note must not enter a mean, where the note could no longer be seen.
    readable = done[(done[f"{AT_EFFECT}_note"] == "") & done[AT_EFFECT].notna()]
    # By setting, since another world may have another method that serves less.
    alike = {
        str(setting): shared_attributes(readable[readable["setting"] == setting], part)
        for setting, part in table.groupby("setting")
    }
    rows = []
    for (setting, method), group in table.groupby(["setting", "method"], sort=False):
        mine, shared = group[group["status"] == "done"], alike[str(setting)]
        same = mine[mine.index.isin(readable.index) & mine["attribute"].isin(shared)]
        row = {
            "setting": setting,
            "method": method,
            # One run a method and attribute: rows count attributes.
            "served": len(mine),
            "asked": table["attribute"].nunique(),
            "accuracy_common": mine.loc[mine["attribute"].isin(common), "accuracy"].mean(),
            "common": len(common),
            # Means over different attributes cannot be compared, so it is the same ones or nothing.
            "ad_at": same[AT_EFFECT].mean() if len(same) == len(shared) else np.nan,
            "ad_at_served": len(shared),
            "leaking": bool(group["leaking"].any()),
            "judged_in": group["judged_in"].iloc[0],
            "variant_of": group["variant_of"].iloc[0],
        }
        for name in (
            "accuracy",
            "success_rate",
            "off_target_flips",
            "path_length",
            "fit_seconds",
            "edits_per_second",
            "generator_calls",
            "labels_used",
            "n",
            "learned",
        ):
            row[name] = mine[name].mean()
        rows.append(row)
    columns = [
        "setting",
        "method",
        "served",
        "asked",
        "accuracy",
        "accuracy_common",
        "common",
        "success_rate",
        "ad_at",
        "ad_at_served",
        "off_target_flips",
        "path_length",
        "fit_seconds",
        "edits_per_second",
        "generator_calls",
        "labels_used",
        "n",
        "learned",
        "leaking",
        "judged_in",
        "variant_of",
    ]
    frame = pd.DataFrame(rows, columns=columns)
    # The floor is a yardstick and no competitor: it stands last even where it beats a method.
    frame["floor"] = frame["variant_of"] == RANDOM
    return frame.sort_values(
        ["setting", "floor", "accuracy", "method"],
        ascending=[True, True, False, True],
        ignore_index=True,
    ).drop(columns="floor")


def shared_attributes(readable: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Attributes on which every method but the floor has a row in `readable`."""
    # Random directions may not reach the effect, and would take the attribute from all others.
    methods = set(table.loc[table["variant_of"] != RANDOM, "method"])
    count = readable[readable["method"].isin(methods)].groupby("attribute")["method"].nunique()
    return sorted(count.index[count == len(methods)])


def matrix(table: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """(methods, attributes) values of one metric, NaN where a run is not done; methods in the order
    of `summary`."""
    order = summary(table)["method"].tolist()
    # dropna=False keeps attributes on which no method has the number.
    wide = table.pivot_table(
        index="method", columns="attribute", values=metric, aggfunc="first", dropna=False
    )
    return wide.reindex(order)


def curves(results: Results, without: Collection[str] = ()) -> dict[str, pd.DataFrame]:
    """Numbers with several x in one run.

    Args:
        results: of one setting.
        without: groups of metrics that are left out, since they have figures of their own.

    Returns:
        Name of the curve -> its finite rows with method, variant_of, attribute; AD first.
    """
    rows = results.rows
    # Rows without x are scalars, which have columns.
    rows = rows[np.isfinite(rows["x"]) & np.isfinite(rows["value"])]
    rows = rows[~rows["group"].isin(list(without))]
    rows = rows.assign(curve=[column_name(row) for row in rows.to_dict("records")])
    spread = rows.groupby(["curve", "run_id"])["x"].nunique().groupby("curve").max()
    # Two points are no curve, and AD at matched effect has a column of the main table.
    names = [name for name in spread.index[spread > 2] if name != AT_EFFECT]
    runs = results.runs[["run_id", "label", "method", "attribute"]].rename(
        columns={"method": "variant_of", "label": "method"}
    )
    joined = rows.merge(runs, on="run_id").sort_values("x")
    found = {}
    for name in sorted(names, key=lambda name: (name != "ad", name)):
        found[name] = joined[joined["curve"] == name].reset_index(drop=True)
    return found


def quantities(results: Results) -> dict[str, Quantity]:
    """Column of `main_table` -> what it holds."""
    found: dict[str, Quantity] = {}
    for row in _scalars(results.rows).to_dict("records"):
        better = row["higher_is_better"]
        # A run of an older version may not say it; another run then does.
        if row["column"] not in found or found[row["column"]].better is None:
            known = None if pd.isna(better) else bool(better)
            found[row["column"]] = Quantity(row["metric"], known)
    return found


def column_name(row: Mapping[Any, Any]) -> str:
    """Name of a metric row's column in a table with one column a number; x does not count.

    'accuracy', or with what the number depends on: 'identity_similarity_at (facenet)'.
    """
    # The effect at which AD is read is told once for the table and not in each heading.
    key = dict(zip(KEY_COLUMNS, key_of(row))) | {"x": None}
    return written_key(key.values())


def _scalars(rows: pd.DataFrame) -> pd.DataFrame:
    """At most one row a run and column, with the column's name."""
    at = rows[rows["metric"] == AT_EFFECT]
    if len(at):
        # One column holds one number: all runs must be read at the same effect.
        counts = at.groupby("x", dropna=False)["run_id"].nunique()
        effect = min(counts.index, key=lambda x: (-counts[x], abs(x - 1.0)))
        at = at[at["x"] == effect] if np.isfinite(effect) else at
    others = rows[(rows["metric"] != AT_EFFECT) & ~np.isfinite(rows["x"])]
    found = pd.concat([others, at])
    found = found.assign(column=[column_name(row) for row in found.to_dict("records")])
    # A cell of the table takes one value.
    return found.drop_duplicates(["run_id", "column"])


def _random_last(column: pd.Series) -> pd.Series:
    if column.name != "method":
        return column
    return column.map(lambda name: (is_random(name), name))
