"""The numbers of the report: one row a method and attribute.

The frame holds plain numbers; editbench.report.cells turns them into text, and
editbench.report.means takes the means over attributes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from editbench.figures.panels import FEWEST
from editbench.report.load import COSTS, Results
from editbench.walk.rows import KEY_COLUMNS, key_of, written_key

KEPT = 4  # results whose tables are kept; a report asks for those of one several times
AT_EFFECT = "ad_at"
# Numbers that are compared with those of the floors -> whether higher is better.
ABOVE_FLOOR = {"accuracy": True, AT_EFFECT: False}
FLOORS_APART = "; "  # between the floors of a cell; a label of variants holds commas
FIRST = ("accuracy", "success_rate", AT_EFFECT, "off_target_flips", "path_length")
IDENTITY = ("setting", "method", "attribute", "status", "floor", "seeds")
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
    """`make_main_table`, which is made once: terminal, page and CSV print the same table."""
    return make_main_table(results).copy()


def scalars_of(table: pd.DataFrame) -> list[str]:
    """The columns of `main_table` that hold a metric, whoever wrote it: each has a NAME_low."""
    names = [str(name) for name in table.columns]
    return [name for name in names if f"{name}_low" in names]


@lru_cache(maxsize=KEPT)
def make_main_table(results: Results) -> pd.DataFrame:
    """One row a run, or a method and attribute where seeds are pooled.

    A metric with several x is a curve and is left out, but for AD at matched effect: there the x
    that most runs share is taken (the nearest to 1 in a tie).

    Returns:
        Columns setting, method (with its variant), attribute, status, floor (whether the method is
        one), seeds (how many the row is over); for every scalar `name` (see `column_name`),
        `name_low`, `name_high` (95 % interval), NaN where it has none, and `name_note` (why it should
        not be read); `name_floor` of ABOVE_FLOOR (floors that the number is not clear of, joined by
        FLOORS_APART); ad_at_effect (sigmas), n (starts),
        learned (AUC of what the method learnt), costs, then what the run was.
    """
    # Once for all runs: which effect most runs share is a question to all of them.
    scalars = _scalars(results)
    # Plain mappings: a part of the table for each run takes pandas ten times as long.
    by_run: dict[str, dict[str, dict[Any, Any]]] = {}
    for row in scalars.to_dict("records"):
        by_run.setdefault(row["run_id"], {})[row["column"]] = row
    # The main numbers have their columns even where no run has them, so that code can rely on them.
    names = [*FIRST, *sorted(set(scalars["column"]) - set(FIRST))]
    records = []
    for run in results.runs.to_dict("records"):
        rows = by_run.get(run["run_id"], {})
        record = {
            "setting": run["setting"],
            "method": run["label"],
            "attribute": run["attribute"],
            "status": run["status"],
            "floor": bool(run["floor"]),
            "seeds": len(run["seeds"]),
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
            | {"seed": ", ".join(map(str, run["seeds"]))}
            # The label tells variants apart; the plain name finds the floor among them.
            | {"variant_of": run["method"]}
        )
    columns = [
        *IDENTITY,
        *(name + end for name in names for end in ("", "_low", "_high", "_note")),
        *(f"{name}_floor" for name in ABOVE_FLOOR),
        "ad_at_effect",
        "n",
        "learned",
        *COSTS,
        "fit_cached",
        "seconds",
        *REST,
    ]
    table = pd.DataFrame(records, columns=columns)
    for name in ABOVE_FLOOR:
        table[f"{name}_floor"] = ""
        for _, group in table.groupby(["setting", "attribute"]):
            table.loc[group.index, f"{name}_floor"] = floors_reached(group, name)
    return table.sort_values(["setting", "attribute", "floor", "method"], ignore_index=True)


def readable(table: pd.DataFrame, name: str) -> pd.Series:
    """Which rows have a number without a note."""
    noted = table[f"{name}_note"].fillna("") != ""
    return (table.get("status", "done") == "done") & np.isfinite(table[name]) & ~noted


def floors_reached(group: pd.DataFrame, name: str) -> pd.Series:
    """The floors that each number is not clear of, by the 95 % intervals.

    A number is clear of a floor if it is better and the two intervals do not overlap. Every floor
    counts for itself: a weak result of one floor does not hide that another is beaten, and the
    reader sees which kind of chance a method is not better than.

    Args:
        group: rows that are compared: of one setting and attribute, or means.
        name: one of ABOVE_FLOOR.

    Returns:
        Names joined by FLOORS_APART; '' if the number is clear of all floors, if it or the floor
        is not readable, and for the floors themselves.
    """
    reached = pd.Series([[] for _ in group.index], index=group.index)
    known = readable(group, name) & np.isfinite(group[f"{name}_low"])
    others = group[known & ~group["floor"]]
    for floor in group[known & group["floor"]].sort_values("method").to_dict("records"):
        if ABOVE_FLOOR[name]:
            clear = others[f"{name}_low"] > floor[f"{name}_high"]
        else:
            clear = others[f"{name}_high"] < floor[f"{name}_low"]
        for row in others.index[~clear]:
            reached[row].append(str(floor["method"]))
    return reached.map(FLOORS_APART.join)


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
    runs = results.runs[["run_id", "label", "attribute"]].rename(columns={"label": "method"})
    joined = rows.merge(runs, on="run_id").sort_values("x")
    found = {}
    for name in sorted(names, key=lambda name: (name != "ad", name)):
        found[name] = joined[joined["curve"] == name].reset_index(drop=True)
    return found


def quantities(results: Results) -> dict[str, Quantity]:
    """Column of `main_table` -> what it holds."""
    found: dict[str, Quantity] = {}
    for row in _scalars(results).to_dict("records"):
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


@lru_cache(maxsize=KEPT)
def _scalars(results: Results) -> pd.DataFrame:
    """At most one row a run and column, with the column's name."""
    rows = results.rows
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
