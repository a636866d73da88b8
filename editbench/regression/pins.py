"""What is pinned of a run: its rows, the values of single starts, and all that must be equal before
two runs can be compared.

A baseline file and a runs folder are read into the same objects, so that they can be compared.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from editbench.report.load import Results
from editbench.report.newest import method_source, newest_of
from editbench.report.settings import flatten, protocol
from editbench.walk.rows import KEY_COLUMNS, KEY_TYPES, key_of

# Numbers of significant digits.
DIGITS = 9  # of a pinned number: enough to distinguish a change of the code from rounding
SAMPLE_DIGITS = 4  # of the value of a start: enough for a paired interval
KEY_DIGITS = 6  # of a number in a key: few enough to be the same on every machine
Key = tuple  # identifies a number by its fields KEY_COLUMNS; None for a field that it lacks
# Networks whose weights must be equal before numbers can be compared. The bank's id is left out: it
# depends on the code, and the check exists to compare two versions of the code. The content of a
# bank is described by its options, which are part of the setting. An imported bank has only its id.
HASHES = ("generator", "judge", "teacher")
NAN = float("nan")


@dataclass(frozen=True)
class Pin:
    """One row of a run.

    Attributes:
        value: as in the run's rows; NaN if there is none.
        low: lower end of its interval.
        high: upper end of its interval.
        count: number of starts.
        version: of the metric.
        note: of the row.
        tolerance: largest change of the value that passes.
        origin: of the tolerance: 'spread', 'scale', 'floor' or 'default'; '' if it has none yet.
        better: whether higher is better; None for neither or unknown. It is not in the file.
    """

    value: float
    low: float
    high: float
    count: float
    version: float
    note: str = ""
    tolerance: float = NAN
    origin: str = ""
    better: bool | None = None


@dataclass(frozen=True, eq=False)
class PinnedRun:
    """One run. It is equal only to itself.

    Args:
        label: 'gradctrl x smile, seed 0', with the options that distinguish it from its variants.
            No other run of the folder has the same label.
        method: of the job.
        attribute: of the job.
        seed: of the job.
        status: of the record.
        reason: of the record, if the job was skipped or failed.
        run_id: of the record.
        options: the method's configuration, flat.
        setting: what must be equal before numbers can be compared, flat.
        source: hash of the method's code.
        changed: batch, seed, threads and hardware. Runs that differ only in these should agree.
        rows: key -> pin.
        starts: (n,) int64 ids in ascending order.
        samples: key -> (n,) float64 values; NaN for a start that has none.
    """

    label: str
    method: str
    attribute: str
    seed: int
    status: str
    reason: str
    run_id: str
    options: dict
    setting: dict
    source: str = ""
    changed: dict = field(default_factory=dict)
    rows: dict[Key, Pin] = field(default_factory=dict)
    starts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    samples: dict[Key, np.ndarray] = field(default_factory=dict)

    @property
    def job(self) -> tuple[str, str, int]:
        """Method, attribute and seed."""
        return self.method, self.attribute, self.seed

    def series(self, key: Key) -> pd.Series | None:
        """The values of single starts whose mean is the value of a row, indexed by start.

        Args:
            key: of the row.

        Returns:
            None if the run has no such values.
        """
        if key not in self.samples:
            return None
        # Starts without a value cannot be paired.
        found = pd.Series(self.samples[key], index=self.starts).dropna()
        if not len(found):
            return None
        # A median or a ratio is not the mean of its samples. The tolerance is that of
        # SAMPLE_DIGITS.
        value = self.rows[key].value
        fits = math.isclose(found.mean(), value, rel_tol=1e-3, abs_tol=1e-6)
        return found if fits else None


def pin_runs(results: Results, every: bool = False) -> tuple[list[PinnedRun], list[str]]:
    """Read the runs of a folder as pinned runs.

    If a job has several records, one is chosen, and a note names the others. Networks are
    identified by their hashes, so a job with a copy of a network under another path is the same
    job.

    Args:
        results: the records.
        every: whether to return all records of a job, to measure the spread.

    Returns:
        The runs, sorted by label unless `every` is set, and the notes.
    """
    # Grouped once, since searching all rows for every run would take quadratic time.
    rows = dict(list(results.rows.groupby("run_id")))
    samples = dict(list(results.samples.groupby("run_id")))
    runs = [
        _pinned_run(run, results, rows.get(run["run_id"]), samples.get(run["run_id"]))
        for run in results.run_records
    ]
    if every:
        return runs, []
    kept, notes = _one_of_each_job(runs, results)
    return kept, [*results.notes, *notes]


def describe_runs(runs: Sequence[PinnedRun]) -> str:
    """The methods, attributes and seeds of runs: 'gradctrl, random on age, smile, seed 0'.

    If none of them is done, their statuses follow.
    """
    if not runs:
        return "no readable run"
    methods = sorted({run.method for run in runs})
    attributes = sorted({run.attribute for run in runs})
    seeds = sorted({run.seed for run in runs})
    statuses = {run.status for run in runs}
    done = "" if "done" in statuses else f", {' or '.join(sorted(statuses))}"
    numbers = ", ".join(map(str, seeds))
    return f"{', '.join(methods)} on {', '.join(attributes)}, seed {numbers}{done}"


def surroundings(results: Results) -> dict:
    """Versions and hardware of the runs: key -> value, or a list of values if the runs differ."""
    found: dict[str, set[str]] = {}
    for made in results.provenance.values():
        # Everything that can change the last bits of a number and is not an option of the run.
        flat = {
            key: made.get(key)
            for key in ("python", "platform", "processor", "threads", "cuda", "device", "git")
        }
        flat |= {
            f"packages.{name}": version for name, version in (made.get("packages") or {}).items()
        }
        for key, value in flat.items():
            if value is not None:
                found.setdefault(key, set()).add(str(value))
    return {
        key: sorted(values) if len(values) > 1 else min(values)
        for key, values in sorted(found.items())
    }


def significant(value: float, digits: int) -> float:
    """Round a number to some significant digits; NaN and infinity are returned unchanged."""
    return float(f"{value:.{digits}g}")


def _pinned_run(
    run: dict, results: Results, rows: pd.DataFrame | None, samples: pd.DataFrame | None
) -> PinnedRun:
    """One run.

    Args:
        run: its row of `Results.runs`.
        results: the records.
        rows: of its metrics; None if it has none.
        samples: of its metrics; None if it has none.
    """
    run_id = run["run_id"]
    made = results.provenance.get(run_id, {})
    config = results.configs.get(run_id, {})
    flat = flatten(config)
    options = {
        key: value
        for key, value in flat.items()
        if key.startswith("method.") and key != "method.name"
    }
    # The seed is included, since runs with other seeds measure the spread of a pinned run.
    changed = {"batch": (config.get("engine") or {}).get("batch"), "seed": run["seed"]}
    changed |= {key: made.get(key) for key in ("threads", "processor", "device")}
    starts, values = _rounded_samples(samples)
    return PinnedRun(
        label=f"{run['method']} x {run['attribute']}, seed {run['seed']}",
        method=run["method"],
        attribute=run["attribute"],
        seed=int(run["seed"]),
        status=run["status"],
        # Without the paths of a log and of a line, which differ between machines.
        reason=re.sub(r" \((see [^)]*log\.txt|[^()]*\.py:\d+)\)", "", run["reason"]),
        run_id=run_id,
        options=options,
        setting=_setting(run, config, flat, made),
        source=method_source(made),
        changed=changed,
        rows=_pins_of(rows),
        starts=starts,
        samples=values,
    )


def _setting(run: dict, config: dict, flat: dict, made: dict) -> dict[str, Any]:
    """What must be equal before the numbers of a run can be compared with others.

    Args:
        run: its row of `Results.runs`.
        config: its configuration.
        flat: the same, flat.
        made: its provenance.
    """
    setting: dict[str, Any] = {}
    for key, value in protocol(run, flat).items():
        # The name of the scorer says which judge is meant. Otherwise networks are compared by their
        # hashes, since the same file may have another path.
        of_networks = key.startswith(("generator.", "scorer.")) and key != "scorer.name"
        # The seed is part of the job.
        if not of_networks and key not in ("seed", "bank.name", "bank.path"):
            setting[key] = value
    hashes = made.get("hashes") or {}
    setting |= {f"hash.{name}": str(hashes[name]) for name in HASHES if name in hashes}
    if "bank" in hashes and (config.get("bank") or {}).get("path"):
        setting["hash.bank"] = str(hashes["bank"])
    return setting


def pinned_key(record: Mapping[Any, Any]) -> Key:
    """The key of a row or sample, with rounded numbers, so that last bits do not change it."""
    key = []
    for value in key_of(record):
        key.append(significant(value, KEY_DIGITS) if isinstance(value, float) else value)
    return tuple(key)


def key_fields(key: Key) -> dict[str, Any]:
    """The fields of a key that have a value; `pinned_key` is the inverse."""
    return {name: value for name, value in zip(KEY_COLUMNS, key) if value not in ("", None)}


def _pins_of(table: pd.DataFrame | None) -> dict[Key, Pin]:
    """The rows of a run as pins without a tolerance; none if it has no rows."""
    if table is None:
        return {}
    pins = {}
    for row in table.to_dict("records"):
        # The direction is read from the new run, so the file does not need it.
        better = None if pd.isna(row["higher_is_better"]) else bool(row["higher_is_better"])
        pins[pinned_key(row)] = Pin(
            value=significant(row["value"], DIGITS),
            low=significant(row["low"], DIGITS),
            high=significant(row["high"], DIGITS),
            count=significant(row["count"], DIGITS),
            version=significant(row["version"], DIGITS),
            note=row["note"],
            better=better,
        )
    return pins


def _rounded_samples(table: pd.DataFrame | None) -> tuple[np.ndarray, dict[Key, np.ndarray]]:
    """The fields `starts` and `samples` of a `PinnedRun`."""
    # For skipped runs, and if no metric keeps samples.
    if table is None or table.empty:
        return np.zeros(0, np.int64), {}
    # All numbers of a run share one list of starts, with NaN for a start that a number lacks.
    starts = np.unique(table["start"].to_numpy(np.int64))
    rounded = {}
    for _, part in table.groupby(list(KEY_TYPES), dropna=False, sort=False):
        column = part.drop_duplicates("start").set_index("start")["value"].reindex(starts)
        values = [significant(value, SAMPLE_DIGITS) for value in column]
        rounded[pinned_key(part.iloc[0].to_dict())] = np.array(values, np.float64)
    return starts, rounded


def _one_of_each_job(
    runs: Sequence[PinnedRun], results: Results
) -> tuple[list[PinnedRun], list[str]]:
    """One run of each job, and a note for each job with several records."""
    groups: dict[str, list[PinnedRun]] = {}
    for run in runs:
        # Without hashes: a record that was made with other code or weights is of the same job.
        groups.setdefault(
            json.dumps([run.job, run.options, _unhashed(run)], sort_keys=True, default=str), []
        ).append(run)
    kept = []
    notes = []
    for group in groups.values():
        by_id = {run.run_id: run for run in group}
        sources = {run.run_id: run.source for run in group}
        target = str(group[0].options.get("method._target_"))
        taken = by_id.pop(newest_of(list(sources), sources, target, results.root))
        if by_id:
            notes.append(f"{taken.label}: {taken.run_id} is used, left out: {', '.join(by_id)}")
        kept.append(taken)
    return _labelled(kept), notes


def _unhashed(run: PinnedRun) -> dict:
    """The setting without hashes, which skipped runs do not have."""
    return {key: value for key, value in run.setting.items() if not key.startswith("hash.")}


def _labelled(runs: Sequence[PinnedRun]) -> list[PinnedRun]:
    """The runs, sorted by label. The labels of variants get the options in which they differ."""
    named = []
    for run in runs:
        # This includes the run itself, which adds no difference.
        twins = [_unhashed(other) | other.options for other in runs if other.job == run.job]
        own = _unhashed(run) | run.options
        keys = sorted(key for key in own if any(twin.get(key) != own[key] for twin in twins))
        shown = ", ".join(f"{key.removeprefix('method.')}={own[key]}" for key in keys)
        named.append(replace(run, label=run.label + (f" ({shown})" if shown else "")))
    return sorted(named, key=lambda run: run.label)
