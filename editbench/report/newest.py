"""Choosing one record of each job.

A job is defined by its configuration. After a change of the method's code or of weights, the same
job gets a new record, and the old one stays in the folder. Tables, pins and comparisons read one of
them: the newest record of the current code if there is one, otherwise the newest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from editbench.base.sources import source_digest
from editbench.report.settings import effective
from editbench.run.record import Record


def older_records(
    runs: Sequence[Mapping[str, Any]],
    configs: Mapping[str, dict],
    provenance: Mapping[str, dict],
    root: Path,
) -> dict[str, str]:
    """The records that are replaced by another one of the same job.

    Args:
        runs: `run_id`, `method`, `attribute`, `seed` and status fields of each.
        configs: run_id -> operative configuration.
        provenance: run_id -> provenance.
        root: folder of the records.

    Returns:
        run_id -> run_id of the record that is read instead.
    """
    jobs: dict[str, list[str]] = {}
    for run in runs:
        run_id = run["run_id"]
        jobs.setdefault(effective(run, configs[run_id]), []).append(run_id)
    found: dict[str, str] = {}
    for run_ids in jobs.values():
        target = str((configs[run_ids[0]].get("method") or {}).get("_target_"))
        sources = {run_id: method_source(provenance[run_id]) for run_id in run_ids}
        newest = newest_of(run_ids, sources, target, root)
        found |= {run_id: newest for run_id in run_ids if run_id != newest}
    return found


def newest_of(run_ids: Sequence[str], sources: Mapping[str, str], target: str, root: Path) -> str:
    """The record of a job that is read.

    Args:
        run_ids: records of the job.
        sources: run_id -> hash of the method's code that made it; '' if unknown.
        target: dotted name of the method's class.
        root: folder of the records.
    """
    # Usually there is only one, and hashing the method's modules takes time.
    if len(run_ids) == 1:
        return run_ids[0]
    now = present_source(target)

    def rank(run_id: str) -> tuple[bool, int]:
        return sources[run_id] == now, (root / run_id / Record.STATUS).stat().st_mtime_ns

    return max(run_ids, key=rank)


def method_source(provenance: Mapping[str, Any]) -> str:
    """Hash of the method's code that made a record; '' if unknown, as for a skipped job."""
    return str((provenance.get("hashes") or {}).get("method_source", ""))


def present_source(target: str) -> str:
    """Hash of a method's current code; '' if it cannot be found."""
    try:
        return source_digest(target)
    except Exception:  # a user's class may not be importable here
        return ""


def notes_of(runs: Sequence[Mapping[str, Any]], older: Mapping[str, str]) -> list[str]:
    """One line for each method of which records were left out.

    Args:
        runs: `run_id` and `method` of each record of the folder.
        older: run_id of a record that is left out -> run_id of the one that is read instead.

    Returns:
        The lines, sorted by method.
    """
    jobs: dict[str, set[str]] = {}
    left: dict[str, list[str]] = {}
    for run in runs:
        if run["run_id"] in older:
            # A set, since several records of one job have the same replacement.
            jobs.setdefault(run["method"], set()).add(older[run["run_id"]])
            left.setdefault(run["method"], []).append(run["run_id"])
    return [
        f"{method}: {len(left[method])} older records of {len(jobs[method])} jobs, made with other "
        f"code or weights, are left out: {', '.join(left[method])}"
        for method in sorted(left)
    ]
