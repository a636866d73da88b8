"""What is pinned of a run: its rows, a value a start for paired differences, and everything that
must agree.

A pinned file and a runs folder become the same objects, so that they can be compared and either can
be shown.
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

# Nine digits tell a change of the code from rounding, four are enough for a paired interval, and
# six make a key the same on machines whose last bits differ.
# Significant digits of a pinned number, of a value of one start, and of a number in a key.
DIGITS = 9
SAMPLE_DIGITS = 4
KEY_DIGITS = 6
Key = tuple  # what a number is: the fields KEY_COLUMNS of editbench.walk.metric, None for none
# Weights that must agree before numbers can be compared. The bank's id is left out: it follows the
# code, and comparing numbers across two versions of the code is what the check is for. What the
# bank holds is told by its options, which are part of the setting. An imported bank has only its
# id.
HASHES = ("generator", "judge", "teacher")
NAN = float("nan")


@dataclass(frozen=True)
class Pin:
    """One row of a run.

    Attributes:
        value: as in the run's rows, NaN where there is none.
        low: lower end of its interval.
        high: upper end of its interval.
        count: of the starts.
        version: of the metric.
        note: of the row.
        tolerance: largest change of the value that passes.
        origin: 'spread', 'scale', 'floor' or 'default', '' before a tolerance was given.
        better: whether higher is better (None: neither or unknown; not in the file).
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
    """One run; equal only to itself.

    Args:
        label: 'gradctrl x smile, seed 0', with the options that distinguish it from its variants;
            unique among its runs.
        method: of the job.
        attribute: of the job.
        seed: of the job.
        status: of the record.
        reason: of the record, where the job was skipped or failed.
        run_id: of the record.
        options: the method's configuration, flat.
        setting: what must agree before numbers can be compared, flat.
        source: hash of the method's code.
        changed: batch, threads and hardware, which should change no number.
        rows: key -> pin.
        starts: (n,) ids in ascending order.
        samples: key -> (n,) values, NaN for a start that has none.
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
        return self.method, self.attribute, self.seed

    def series(self, key: Key) -> pd.Series | None:
        """Values a start whose mean is the row, for pairing; None where the run keeps none for
        it."""
        if key not in self.samples:
            return None
        # Starts without a value are left out: pairing wants a number on either side.
        found = pd.Series(self.samples[key], index=self.starts).dropna()
        if not len(found):
            return None
        # A median or a ratio is not the mean of its samples; samples are kept to 4 digits.
        value = self.rows[key].value
        fits = math.isclose(found.mean(), value, rel_tol=1e-3, abs_tol=1e-6)
        return found if fits else None


def pin_runs(results: Results, every: bool = False) -> tuple[list[PinnedRun], list[str]]:
    """The runs of a folder as they are pinned.

    Of several records of one job one is taken, and a note names the others. Networks are told apart
    by their hashes here: a copy under another path is the same network, and the same job.

    Args:
        results: the records.
        every: keep all of them, for the measurement of spread.

    Returns:
        Runs sorted by label, and notes.
    """
    # Grouped once; to search all rows for every run would take the square of the time.
    rows = dict(list(results.rows.groupby("run_id")))
    samples = dict(list(results.samples.groupby("run_id")))
    runs = [
        _pin(run, results, rows.get(run["run_id"]), samples.get(run["run_id"]))
        for run in results.run_records
    ]
    if every:
        return runs, []
    kept, notes = _distinct(runs, results)
    return kept, [*results.notes, *notes]


def surroundings(results: Results) -> dict:
    """Versions and hardware of the runs; a list where they differ."""
    found: dict[str, set[str]] = {}
    for made in results.provenance.values():
        # What can change the last bits of a number and is no option of the run.
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
    """The number rounded to some significant digits; NaN and infinity stay as they are."""
    return float(f"{value:.{digits}g}")


def _pin(
    run: dict, results: Results, rows: pd.DataFrame | None, samples: pd.DataFrame | None
) -> PinnedRun:
    run_id, made = run["run_id"], results.provenance.get(run["run_id"], {})
    config = results.configs.get(run_id, {})
    flat, hashes = flatten(config), made.get("hashes") or {}
    # Networks are compared by their hashes: the same file under another path is the same network.
    # The seed belongs to the job; of the scorer the name is kept, as it says which judge is meant.
    setting = {
        key: value
        for key, value in protocol(run, flat).items()
        if key == "scorer.name"
        or not (
            key in ("seed", "bank.name", "bank.path") or key.startswith(("generator.", "scorer."))
        )
    }
    setting |= {f"hash.{name}": str(hashes[name]) for name in HASHES if name in hashes}
    if "bank" in hashes and (config.get("bank") or {}).get("path"):
        setting["hash.bank"] = str(hashes["bank"])
    # Names and descriptions are for people; a changed word must not make another method.
    options = {
        key: value
        for key, value in flat.items()
        if key.startswith("method.") and key != "method.name"
    }
    # The seed is among them, since runs of other seeds measure the spread of a pinned one.
    changed = {"batch": (config.get("engine") or {}).get("batch"), "seed": run["seed"]}
    changed |= {key: made.get(key) for key in ("threads", "processor", "device")}
    starts, values = _samples(samples)
    return PinnedRun(
        f"{run['method']} x {run['attribute']}, seed {run['seed']}",
        run["method"],
        run["attribute"],
        int(run["seed"]),
        run["status"],
        # Paths of a log and of a line are of this machine and would differ at every check.
        re.sub(r" \((see [^)]*log\.txt|[^()]*\.py:\d+)\)", "", run["reason"]),
        run_id,
        options,
        setting,
        method_source(made),
        changed,
        _rows(rows),
        starts,
        values,
    )


def pinned_key(record: Mapping[Any, Any]) -> Key:
    """The key of a row or sample; its numbers are rounded, so that a last bit makes no other
    key."""
    key = []
    for value in key_of(record):
        key.append(significant(value, KEY_DIGITS) if isinstance(value, float) else value)
    return tuple(key)


def key_fields(key: Key) -> dict[str, Any]:
    """The fields of a key that hold something; `pinned_key` reads them back."""
    return {name: value for name, value in zip(KEY_COLUMNS, key) if value not in ("", None)}


def _rows(table: pd.DataFrame | None) -> dict[Key, Pin]:
    if table is None:
        return {}
    pins = {}
    for row in table.to_dict("records"):
        # Direction is read from the new run, so the file need not hold it.
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


def _samples(table: pd.DataFrame | None) -> tuple[np.ndarray, dict[Key, np.ndarray]]:
    # Skipped runs, and metrics that keep no samples.
    if table is None or table.empty:
        return np.zeros(0, np.int64), {}
    # All samples of a run share one list of starts; a metric that lacks one has NaN there.
    starts = np.unique(table["start"].to_numpy(np.int64))
    rounded = {}
    for _, part in table.groupby(list(KEY_TYPES), dropna=False, sort=False):
        column = part.drop_duplicates("start").set_index("start")["value"].reindex(starts)
        values = [significant(value, SAMPLE_DIGITS) for value in column]
        rounded[pinned_key(part.iloc[0].to_dict())] = np.array(values, np.float64)
    return starts, rounded


def _distinct(runs: Sequence[PinnedRun], results: Results) -> tuple[list[PinnedRun], list[str]]:
    groups: dict[str, list[PinnedRun]] = {}
    for run in runs:
        # Without the hashes, as records of one job by other code or weights are still the same job.
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
    """The setting without hashes: a skipped run has none, and one job must be recognised with and
    without."""
    return {key: value for key, value in run.setting.items() if not key.startswith("hash.")}


def _labelled(runs: Sequence[PinnedRun]) -> list[PinnedRun]:
    """Runs of one method, attribute and seed get the options in which they differ into their
    labels."""
    named = []
    for run in runs:
        # A run is among its own twins, which adds no difference.
        twins = [_unhashed(other) | other.options for other in runs if other.job == run.job]
        own = _unhashed(run) | run.options
        keys = sorted(key for key in own if any(twin.get(key) != own[key] for twin in twins))
        shown = ", ".join(f"{key.removeprefix('method.')}={own[key]}" for key in keys)
        named.append(replace(run, label=run.label + (f" ({shown})" if shown else "")))
    return sorted(named, key=lambda run: run.label)
