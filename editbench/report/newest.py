"""One record of each job.

A job is what its configuration says. A changed line of the method's code, or other weights, make
another record of the same job, and the earlier one stays in the folder. Tables, pins and
comparisons read one of them: the newest of the present code, or else the newest.
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
    """The records that another one of the same job replaces.

    Args:
        runs: `run_id`, `method`, `attribute`, `seed` and status fields of each.
        configs: run_id -> operative configuration.
        provenance: run_id -> provenance.
        root: folder of the records.

    Returns:
        run_id -> run_id of the record that is read in its place.
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
    """The record of one job that is read.

    Args:
        run_ids: its records.
        sources: run_id -> hash of the method's code that made it, '' where it is unknown.
        target: dotted name of the method's class.
        root: folder of the records.
    """
    # Mostly there is one, and reading the method's modules takes time.
    if len(run_ids) == 1:
        return run_ids[0]
    now = present_source(target)

    def rank(run_id: str) -> tuple[bool, int]:
        return sources[run_id] == now, (root / run_id / Record.STATUS).stat().st_mtime_ns

    return max(run_ids, key=rank)


def method_source(provenance: Mapping[str, Any]) -> str:
    """Hash of the method's code that made a record; '' where it is unknown, as of a skipped job."""
    return str((provenance.get("hashes") or {}).get("method_source", ""))


def present_source(target: str) -> str:
    """Hash of a method's code as it is now; '' where it cannot be found."""
    try:
        return source_digest(target)
    except Exception:  # a class of somebody else that cannot be imported here
        return ""


def notes_of(runs: Sequence[Mapping[str, Any]], older: Mapping[str, str]) -> list[str]:
    """One line a method of which records were left out."""
    jobs: dict[str, set[str]] = {}
    left: dict[str, list[str]] = {}
    for run in runs:
        if run["run_id"] in older:
            jobs.setdefault(run["method"], set()).add(older[run["run_id"]])
            left.setdefault(run["method"], []).append(run["run_id"])
    return [
        f"{method}: {len(left[method])} older records of {len(jobs[method])} jobs, made with other "
        f"code or weights, are left out: {', '.join(left[method])}"
        for method in sorted(left)
    ]
