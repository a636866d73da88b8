"""The main table of a report: one row per method and attribute.

It has plain numbers; editbench.report.cells converts them to text, and editbench.report.means
computes the means over attributes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from editbench.figures.drawing import with_methods
from editbench.figures.panels import FEWEST
from editbench.report.load import COST_KEYS, Results
from editbench.walk.rows import KEY_COLUMNS, key_of, written_key

KEPT = 4  # number of results whose tables are cached; a report uses each table several times
AT_EFFECT = "ad_at"
# Numbers that are compared with the floors -> whether higher is better.
ABOVE_FLOOR = {"accuracy": True, AT_EFFECT: False}
FLOORS_APART = "; "  # separates the floors of a cell; not a comma, since labels may contain commas
FIRST = ("accuracy", "success_rate", AT_EFFECT, "off_target_flips", "path_length")
IDENTITY = ("setting", "method", "attribute", "status", "floor", "seeds")
# The last columns, after the numbers.
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
    "no_control",
    "reason",
)


class Quantity(NamedTuple):
    """The content of a column of `main_table`.

    Attributes:
        metric: name in the metric's rows.
        better: whether higher is better; None for neither or unknown.
    """

    metric: str
    better: bool | None = None


def main_table(results: Results) -> pd.DataFrame:
    """The cached result of `make_main_table`, for the terminal, page and CSV."""
    return make_main_table(results).copy()


def scalars_of(table: pd.DataFrame) -> list[str]:
    """The columns of `main_table` that hold metrics, including a user's: they have a NAME_low."""
    names = [str(name) for name in table.columns]
    return [name for name in names if f"{name}_low" in names]


@lru_cache(maxsize=KEPT)
def make_main_table(results: Results) -> pd.DataFrame:
    """One row per run, or per method and attribute if seeds are pooled.

    Metrics with several x are curves and are left out, except for AD at matched effect. Of AD, the
    x that most runs have is used (the nearest to 1 in a tie).

    Returns:
        These columns:

        - setting, method (with its variant), attribute, status, floor (whether the method is one),
          seeds (number of seeds that the row is over);
        - for every scalar `name` (see `column_name`): `name_low`, `name_high` (95 % interval, NaN
          if it has none) and `name_note` (why it should not be read); for those of ABOVE_FLOOR also
          `name_floor` (floors that the number is not clear of, joined by FLOORS_APART);
        - ad_at_effect (sigmas), n (starts), learned (AUC of what the method learnt), costs, and
          descriptions of the run.
    """
    # For all runs together, to find the effect that most of them have.
    scalars = _scalars(results)
    # Dictionaries, since slicing the table for each run would take ten times as long.
    by_run: dict[str, dict[str, dict[Any, Any]]] = {}
    for row in scalars.to_dict("records"):
        by_run.setdefault(row["run_id"], {})[row["column"]] = row
    # The main numbers always have columns, even if no run has them, so that code can rely on them.
    names = [*FIRST, *sorted(set(scalars["column"]) - set(FIRST))]
    records = []
    for run in results.run_records:
        rows = by_run.get(run["run_id"], {})
        records.append(_main_record(run, rows, names))
    columns = [
        *IDENTITY,
        *(name + end for name in names for end in ("", "_low", "_high", "_note")),
        *(f"{name}_floor" for name in ABOVE_FLOOR),
        "ad_at_effect",
        "n",
        "learned",
        *COST_KEYS,
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


def _main_record(
    run: dict[str, Any], rows: dict[str, dict[Any, Any]], names: list[str]
) -> dict[str, Any]:
    """One row of the main table.

    Args:
        run: description of the run.
        rows: name of a scalar -> its row; empty for a run that was skipped or failed.
        names: of all scalars of the table.
    """
    record = {
        "setting": run["setting"],
        "method": run["label"],
        "attribute": run["attribute"],
        "status": run["status"],
        "floor": bool(run["floor"]),
        "seeds": len(run["seeds"]),
    }
    for name in names:
        # A run that was skipped or failed has a row without numbers.
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
    # AD is over only the starts that reach the effect, so a mean over few of them gets a note.
    ad_n = rows.get(AT_EFFECT, {}).get("count", FEWEST)
    if ad_n < FEWEST and not record[f"{AT_EFFECT}_note"]:
        record[f"{AT_EFFECT}_note"] = f"fewer than {FEWEST} starts reach this effect"
    record |= {name: run[name] for name in ("learned", *COST_KEYS, "fit_cached", "seconds")}
    return (
        record
        | {name: run[name] for name in REST if name in run}
        | {"seed": ", ".join(map(str, run["seeds"]))}
        # The method's name without its variant.
        | {"variant_of": run["method"]}
    )


def readable(table: pd.DataFrame, name: str) -> pd.Series:
    """Whether each row has a finite number without a note.

    Args:
        table: `main_table` or the means. A row that is not 'done' has no number, unless it counts as
            a failure since no control was found.
        name: column of the number, beside which there is a column NAME_note.

    Returns:
        bool, with the index of the table.
    """
    noted = table[f"{name}_note"].fillna("") != ""
    return np.isfinite(table[name]) & ~noted


def floors_reached(group: pd.DataFrame, name: str) -> pd.Series:
    """The floors that each number is not clear of, by the 95 % intervals.

    A number is clear of a floor if it is better and the two intervals do not overlap. Each floor is
    compared separately, so a reader sees which kind of chance a method is not better than.

    Args:
        group: rows to compare: of one setting and attribute, or means.
        name: one of ABOVE_FLOOR.

    Returns:
        Names joined by FLOORS_APART; '' if the number is clear of all floors, if it or the floor
        is not readable, and for the floors themselves.
    """
    reached = pd.Series([[] for _ in group.index], index=group.index)
    known = readable(group, name) & np.isfinite(group[f"{name}_low"])
    others = group[known & ~group["floor"]]
    compared = ["method", f"{name}_low", f"{name}_high"]
    floors = group.loc[known & group["floor"], compared].sort_values("method")
    for floor in floors.to_dict("records"):
        if ABOVE_FLOOR[name]:
            clear = others[f"{name}_low"] > floor[f"{name}_high"]
        else:
            clear = others[f"{name}_high"] < floor[f"{name}_low"]
        for row in others.index[~clear]:
            reached[row].append(str(floor["method"]))
    return reached.map(FLOORS_APART.join)


def curves(results: Results, without: Collection[str] = ()) -> dict[str, pd.DataFrame]:
    """Metrics with several x in one run.

    Args:
        results: of one setting.
        without: groups of metrics to leave out, since they have figures of their own.

    Returns:
        Name of the curve -> its finite rows with method, variant_of, attribute; AD first.
    """
    rows = results.rows
    # Rows without x are scalars, which are columns of the main table.
    rows = rows[np.isfinite(rows["x"]) & np.isfinite(rows["value"])]
    rows = rows[~rows["group"].isin(list(without))]
    rows = rows.assign(curve=[column_name(row) for row in rows.to_dict("records")])
    spread = rows.groupby(["curve", "run_id"])["x"].nunique().groupby("curve").max()
    # Two points are not a curve, and AD at matched effect is a column of the main table.
    names = [name for name in spread.index[spread > 2] if name != AT_EFFECT]
    joined = with_methods(rows, results.runs).sort_values("x")
    found = {}
    for name in sorted(names, key=lambda name: (name != "ad", name)):
        found[name] = joined[joined["curve"] == name].reset_index(drop=True)
    return found


def quantities(results: Results) -> dict[str, Quantity]:
    """Column of `main_table` -> its content."""
    found: dict[str, Quantity] = {}
    for row in _scalars(results).to_dict("records"):
        better = row["higher_is_better"]
        # Records of older versions may lack the direction, which another run may have.
        if row["column"] not in found or found[row["column"]].better is None:
            known = None if pd.isna(better) else bool(better)
            found[row["column"]] = Quantity(row["metric"], known)
    return found


def column_name(row: Mapping[Any, Any]) -> str:
    """Name of the column for a metric row, without its x.

    'accuracy', or with what the number depends on: 'identity_similarity_at (facenet)'.
    """
    # The effect of AD is the same in the whole table and is not part of the name.
    key = dict(zip(KEY_COLUMNS, key_of(row))) | {"x": None}
    return written_key(key.values())


@lru_cache(maxsize=KEPT)
def _scalars(results: Results) -> pd.DataFrame:
    """At most one row per run and column, with the column's name."""
    rows = results.rows
    at = rows[rows["metric"] == AT_EFFECT]
    if len(at):
        # All runs must be read at the same effect, since they share a column.
        counts = at.groupby("x", dropna=False)["run_id"].nunique()
        effect = min(counts.index, key=lambda x: (-counts[x], abs(x - 1.0)))
        at = at[at["x"] == effect] if np.isfinite(effect) else at
    others = rows[(rows["metric"] != AT_EFFECT) & ~np.isfinite(rows["x"])]
    found = pd.concat([others, at])
    found = found.assign(column=[column_name(row) for row in found.to_dict("records")])
    # A cell of the table has one value.
    return found.drop_duplicates(["run_id", "column"])
