"""Settings whose runs cannot be compared: versions, weights or options differ between them.

Settings are told apart by the options of a job. Code, files of weights, and options of metrics may
change under the same names, and the numbers would still be shown in one table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from editbench.report.problem import Problem
from editbench.walk.rows import KEY_COLUMNS as METRIC_ROW_KEYS

# What identifies a number but for its place on a curve; `group` is the metric's option in the
# configuration.
NUMBER_COLUMNS = ("group", *(name for name in METRIC_ROW_KEYS if name != "x"))
# Networks of a run whose hashes the provenance has.
NETWORKS = ("generator", "teacher", "judge")
NAMED_RUNS = 3  # run ids named in a message


def mixed_versions(runs: pd.DataFrame, rows: pd.DataFrame) -> list[Problem]:
    """Settings with rows of a metric from different versions of the metric's code.

    Args:
        runs: `Results.runs`, one row per record.
        rows: `Results.rows`; those without a version are ignored.

    Returns:
        One problem for all metrics of a setting with the same versions in the same runs.
    """
    found: dict[tuple[str, str], list[str]] = {}
    # Rows without a version are ignored.
    known = rows[["run_id", "metric", "version"]].dropna().drop_duplicates()
    known = known.merge(runs[["run_id", "setting"]], on="run_id")
    for (setting, metric), group in known.groupby(["setting", "metric"]):
        if group["version"].nunique() > 1:
            sides = [
                f"version {version:g} in {', '.join(sorted(part['run_id']))}"
                for version, part in sorted(group.groupby("version"), key=lambda one: len(one[1]))
            ]
            # Metrics with the same versions and runs become one problem.
            found.setdefault((str(setting), "; ".join(sides)), []).append(str(metric))
    return _problems(
        found,
        "mixed versions, not comparable: {sides}. Delete the folders of the older version and run "
        "their jobs again",
    )


def mixed_networks(
    runs: pd.DataFrame, provenance: Mapping[str, Mapping[str, Any]]
) -> list[Problem]:
    """Settings whose runs had different weights of a network, for example of a retrained judge.

    Settings are told apart by their options. A file of weights may change under its name.

    Args:
        runs: `Results.runs`, one row per record.
        provenance: run_id -> provenance; records without hashes are ignored.

    Returns:
        One problem for all networks of a setting that differ between the same runs.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for setting, group in runs.groupby("setting"):
        hashes = {run_id: provenance[run_id].get("hashes") or {} for run_id in group["run_id"]}
        for network in NETWORKS:
            sides = _sides(hashes, network)
            if len(sides) > 1:
                found.setdefault((str(setting), _name_sides(sides)), []).append(network)
    return _problems(
        found,
        "weights or code of the network differ, not comparable: {sides}; run all jobs again with the "
        "present files, or keep the two in separate folders (out=FOLDER)",
    )


def mixed_parts(
    runs: pd.DataFrame, hashes: Mapping[str, Mapping[str, str]], numbers: pd.DataFrame
) -> list[Problem]:
    """Settings with numbers of a metric that were computed with different options or sources.

    Options of metrics and observations do not make settings. A sweep shares them, but someone may
    run one method again with others.

    Args:
        runs: `Results.runs`, one row per record.
        hashes: run_id -> `Record.part_hashes`.
        numbers: NUMBER_COLUMNS and run_id.

    Returns:
        One problem for all metrics and observations of a setting that differ between the same runs.
    """
    found: dict[tuple[str, str], list[str]] = {}
    # An option may differ between attributes on purpose, such as the second one of a composition.
    for (setting, _), group in runs.groupby(["setting", "attribute"]):
        present = {run_id: hashes[run_id] for run_id in group["run_id"]}
        for name in sorted(set().union(*present.values())):
            sides = _sides(present, name)
            if len(sides) < 2:
                continue
            metric = name.removeprefix("metric.")
            if metric != name and not _share_numbers(numbers[numbers["group"] == metric], sides):
                continue
            found.setdefault((str(setting), _name_sides(sides)), []).append(name)
    return _problems(
        found,
        "options or source differ, not comparable: {sides}; run all jobs again with the same options "
        "(for a metric this reads the stored walks), or keep the two in separate folders (out=FOLDER)",
    )


def _sides(hashes: Mapping[str, Mapping[str, Any]], name: str) -> list[list[str]]:
    """Run ids with the same hash of something. Runs without a hash of it are left out.

    Args:
        hashes: run_id -> name -> hash.
        name: of what may differ between the runs.

    Returns:
        One list for each hash, the shortest first: these are probably the runs to repeat.
    """
    by_hash: dict[str, list[str]] = {}
    for run_id in sorted(hashes):
        if name in hashes[run_id]:
            by_hash.setdefault(str(hashes[run_id][name]), []).append(run_id)
    return sorted(by_hash.values(), key=len)


def _name_sides(sides: Sequence[Sequence[str]]) -> str:
    """The run ids of several sides, as text."""
    return " and ".join(map(_some_runs, sides))


def _some_runs(run_ids: Sequence[str]) -> str:
    """The first run ids of a list, and the number of others."""
    more = f" and {len(run_ids) - NAMED_RUNS} more" if len(run_ids) > NAMED_RUNS else ""
    return ", ".join(run_ids[:NAMED_RUNS]) + more


def _share_numbers(numbers: pd.DataFrame, sides: Sequence[Sequence[str]]) -> bool:
    """Whether runs of several sides have the same number. Those of another n or effect are others.

    Args:
        numbers: NUMBER_COLUMNS and run_id of one metric.
        sides: run ids.
    """
    side_of = {run_id: place for place, side in enumerate(sides) for run_id in side}
    sided = numbers.assign(side=numbers["run_id"].map(side_of)).dropna(subset=["side"])
    return bool((sided.groupby(list(NUMBER_COLUMNS), dropna=False)["side"].nunique() > 1).any())


def _problems(found: Mapping[tuple[str, str], Sequence[str]], reason: str) -> list[Problem]:
    """One problem for each setting and division of its runs into sides.

    Args:
        found: (setting, sides) -> names of what differs between these sides.
        reason: with {sides} in place of their text.
    """
    return [
        Problem(
            ", ".join(names) + (f" ({setting})" if setting else ""),
            reason.replace("{sides}", sides),
        )
        for (setting, sides), names in found.items()
    ]
