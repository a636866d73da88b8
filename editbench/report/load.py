"""Read every record of a runs folder into tables. Nothing here computes a number, but for the means
over seeds where these are asked for.

A folder that cannot be read is listed as a problem, with its name and the reason; the rest is still
returned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from safetensors.numpy import load_file

from editbench.base.errors import EditbenchError
from editbench.report.newest import notes_of, older_records
from editbench.report.seeds import pool_seeds
from editbench.report.settings import add_settings
from editbench.run.record import Record
from editbench.walk.observed import Observed, observation_file, read_observed
from editbench.walk.rows import ROW_TYPES as METRIC_ROW_TYPES
from editbench.walk.rows import SAMPLE_TYPES

# Without these a run has no place in any table.
STATUS_KEYS = ("status", "method", "attribute", "generator")
# What a record adds to the rows of a metric; `group` is the metric's option in the configuration.
ADDED_TYPES = {"group": "str", "version": "float64", "higher_is_better": "object"}
ROW_TYPES = METRIC_ROW_TYPES | ADDED_TYPES
# What pooling adds to the rows: how many seeds a number is over, and their part of its variance.
SEED_COLUMNS = {"seeds": 1, "seed_variance": 0.0}
# Records without the key `floor` were written by versions that had one floor, of this name.
OLD_FLOOR = "random"
COSTS = (
    "fit_seconds",
    "walk_seconds",
    "edits_per_second",
    "generator_calls",
    "labels_used",
    "peak_memory_mb",
)
# Of `Results.runs`, before settings are added.
RUN_COLUMNS = (
    "run_id",
    "method",
    "floor",
    "attribute",
    "generator",
    "seed",
    "seeds",
    "seeds_asked",
    "run_ids",
    "judged_in",
    "leaking",
    "experiment",
    "status",
    "reason",
    "seconds",
    "classes",
    "learned",
    *COSTS,
    "fit_cached",
    "scorer",
    "bank",
)


@dataclass(frozen=True)
class Problem:
    """Something that could not be read or drawn: where, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)  # compared by identity, so that tables of it can be kept
class Results:
    """All records of a runs folder.

    Args:
        root: the runs folder.
        runs: one row a run, sorted by setting, attribute and method: run_id (the folder's name), the keys of
            status.json, the costs of provenance.json (NaN where unknown), scorer, bank, and from
            editbench.report.settings `setting` (runs of one setting can be compared) and `label`
            (the method, told apart from its other variants). `floor` says whether the method is a
            floor; `seeds`, `run_ids` and `seeds_asked` what a row is over. Where seeds are pooled a
            row is a method and attribute, under the run_id of its first seed.
        rows: all metric rows, with run_id, `seeds` and `seed_variance`.
        samples: all values of single starts, with run_id.
        configs: run_id -> operative configuration.
        provenance: run_id -> provenance.
        problems: what could not be read.
        notes: which records were left out, for others of the same jobs.
    """

    root: Path
    runs: pd.DataFrame
    rows: pd.DataFrame
    samples: pd.DataFrame
    configs: dict[str, dict] = field(default_factory=dict)
    provenance: dict[str, dict] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    def only(self, setting: str) -> Results:
        """The same, of one setting."""
        # configs and provenance stay whole: what lists them has to choose the runs itself.
        return self._rows_of(self.runs[self.runs["setting"] == setting])

    def kept(self, which: pd.Series) -> Results:
        """The same, of some rows of `runs`, as if no others had been there.

        Args:
            which: one truth value a row.
        """
        part = self._rows_of(self.runs[which])
        several = {run for ids in part.runs["run_ids"] for run in ids}
        return replace(
            part,
            configs={run: one for run, one in self.configs.items() if run in several},
            provenance={run: one for run, one in self.provenance.items() if run in several},
        )

    def _rows_of(self, runs: pd.DataFrame) -> Results:
        keep = set(runs["run_id"])
        return replace(
            self,
            runs=runs.reset_index(drop=True),
            rows=self.rows[self.rows["run_id"].isin(keep)],
            samples=self.samples[self.samples["run_id"].isin(keep)],
        )

    def by_setting(self) -> list[tuple[str, Results]]:
        """The records of each setting, with its name; sorted by name."""
        names = sorted(set(self.runs["setting"]))
        if len(names) == 1:
            return [(names[0], self)]
        return [(name, self.only(name)) for name in names]

    def observation(self, run_id: str, name: str) -> Observed | None:
        """What an observation left in a run, None where the run had no such observation."""
        # Asked before it is read: no observation is usual, a damaged one is an error.
        file = observation_file(self.root / run_id, name)
        if not Record.read(self.root / run_id).has(file.name):
            return None
        return read_observed(self.root / run_id, name)

    def strips(self, run_id: str) -> dict[str, Any] | None:
        """Arrays of the kept pictures, None where the run has none.

        Raises:
            EditbenchError: the file is unreadable.
        """
        record = Record.read(self.root / run_id)
        if not record.has(Record.PICTURES):
            return None
        path = record.path(Record.PICTURES)
        try:
            arrays = load_file(path)
            images, shape = arrays["images"], arrays["images"].shape
            # (starts, frames, C, H, W), and a value a frame: other shapes would put numbers under
            # pictures that they are not of.
            fits = (
                len(shape) == 5
                and shape[2] in (1, 3)
                and all(arrays[name].shape == shape[:2] for name in ("steps", "crossed", "effect"))
            )
            if not fits or images.dtype != "uint8" or arrays["starts"].shape != shape[:1]:
                raise ValueError(
                    f"images of shape {shape} and type {images.dtype} do not fit the other arrays"
                )
        except Exception as error:  # safetensors raises its own types
            raise EditbenchError(f"{path} is not readable ({error}); run the job again") from error
        return arrays


def load(
    root: Path,
    only: Collection[str] | None = None,
    by_seed: bool = True,
    newest: bool = True,
) -> Results:
    """Read the records under `root`.

    Args:
        root: folder of the records.
        only: run ids to read; None takes every record.
        by_seed: whether each seed is a row and a setting of its own. Without, the seeds of a method
            on an attribute are one row: means over starts and seeds, see editbench.report.seeds.
        newest: whether one record of each job is read, see editbench.report.newest; else all.

    Raises:
        EditbenchError: the folder is missing or holds no record at all.
    """
    root = Path(root)
    if not root.is_dir():
        found = "is a file" if root.is_file() else "does not exist"
        raise EditbenchError(
            f"the runs folder '{root}' {found}; name the folder that a sweep wrote to"
        )
    read: dict[str, _RunFiles] = {}
    problems: list[Problem] = []
    # The order of a directory is the file system's; sorted, two machines give the same tables.
    for folder in sorted(root.iterdir()):
        # The report lies in the folder as well.
        if not Record.is_record(folder) or (only is not None and folder.name not in only):
            continue
        try:
            read[folder.name] = _read(Record.read(folder))
        except Exception as error:  # any damage: the other runs must still be reported
            problems.append(Problem(folder.name, f"{type(error).__name__}: {error}"))
    # With problems the caller can still say which folders are damaged.
    if not read and not problems:
        raise EditbenchError(
            f"no run was found in '{root}' (a run is a folder with a status.json); run a job "
            "first, or name another folder"
        )
    configs = {run_id: one.config for run_id, one in read.items()}
    provenance = {run_id: one.provenance for run_id, one in read.items()}
    notes: list[str] = []
    if newest:
        runs = [one.run for one in read.values()]
        older = older_records(runs, configs, provenance, root)
        notes = notes_of(runs, older)
        for run_id in older:
            del read[run_id], configs[run_id], provenance[run_id]
    table = pd.DataFrame([one.run for one in read.values()], columns=list(RUN_COLUMNS))
    table = table.sort_values(["attribute", "method", "run_id"], ignore_index=True)
    # Settings are named by what differs, so they need all runs at once.
    table = add_settings(table, configs, by_seed)
    rows = _join({run_id: one.rows for run_id, one in read.items()}, ROW_TYPES)
    rows = rows.assign(**SEED_COLUMNS)
    samples = _join({run_id: one.samples for run_id, one in read.items()}, SAMPLE_TYPES)
    # Before seeds are pooled: a mean over versions would hide that there are several.
    problems += mixed_versions(table, rows)
    if not by_seed:
        table, rows, samples = pool_seeds(table, rows, samples, ("learned", *COSTS))
    return Results(root, table, rows, samples, configs, provenance, tuple(problems), tuple(notes))


def require_readable(results: Results) -> None:
    """Raise EditbenchError where every record of a folder is damaged."""
    if results.runs.empty:
        named = "; ".join(f"{problem.name} ({problem.reason})" for problem in results.problems)
        raise EditbenchError(
            f"no run in '{results.root}' is readable: {named}. Delete these folders and run the jobs "
            "again"
        )


def mixed_versions(runs: pd.DataFrame, rows: pd.DataFrame) -> list[Problem]:
    """A problem for each setting and group of metrics whose rows come from different versions of
    the metric's code."""
    found: dict[tuple[str, str], list[str]] = {}
    # Rows of a record without versions say nothing about a mixture.
    known = rows[["run_id", "metric", "version"]].dropna().drop_duplicates()
    known = known.merge(runs[["run_id", "setting"]], on="run_id")
    for (setting, metric), group in known.groupby(["setting", "metric"]):
        if group["version"].nunique() > 1:
            sides = [
                f"version {version:g} in {', '.join(sorted(part['run_id']))}"
                for version, part in sorted(group.groupby("version"), key=lambda one: len(one[1]))
            ]
            # Metrics that share versions and runs become one problem.
            found.setdefault((str(setting), "; ".join(sides)), []).append(str(metric))
    return [
        Problem(
            f"{', '.join(metrics)}" + (f" ({setting})" if setting else ""),
            f"mixed versions, not comparable: {sides}. Delete the folders of the older version and "
            "run their jobs again",
        )
        for (setting, sides), metrics in found.items()
    ]


def describe(node: object) -> str:
    """The name of a config group, '' where it has none."""
    if isinstance(node, dict):
        return str(node.get("name") or "")
    return "" if node is None else str(node)


class _RunFiles(NamedTuple):
    """What a report reads of one record.

    Attributes:
        run: its row of `Results.runs`, without what other runs decide.
        config: operative configuration.
        provenance: of a run that was skipped or failed that of its fit, {} if it had none.
        rows: of its metrics; None of a run that is not done.
        samples: likewise.
    """

    run: dict[str, Any]
    config: dict
    provenance: dict
    rows: pd.DataFrame | None
    samples: pd.DataFrame | None


def _read(record: Record) -> _RunFiles:
    """Read one record. What is raised says what is wrong with it."""
    status = record.status
    # status.json can be written by anybody's harness, so its types are checked.
    missing = [key for key in STATUS_KEYS if not isinstance(status.get(key), str)]
    if missing:
        raise ValueError(f"{Record.STATUS} lacks {', '.join(missing)}")
    config = record.config()
    made = record.provenance()
    rows = samples = None
    # A job that failed may have left half of its tables; none of them is a result.
    if status["status"] == "done":
        optional = ("version", "higher_is_better")
        rows = _table(record.rows(), Record.ROWS, ROW_TYPES, optional)
        samples = _table(record.samples(), Record.SAMPLES, SAMPLE_TYPES)
    seed = int(status.get("seed") or 0)
    floor = status.get("floor")
    run = {
        "run_id": record.folder.name,
        **{key: status[key] for key in STATUS_KEYS},
        "floor": floor if isinstance(floor, bool) else status["method"] == OLD_FLOOR,
        "reason": status.get("reason") or "",
        "seed": seed,
        "seeds": (seed,),
        "seeds_asked": 1,
        "run_ids": (record.folder.name,),
        "judged_in": status.get("judged_in") or "image",
        "leaking": bool(status.get("leaking")),
        "experiment": status.get("experiment") or "",
        "classes": list(status.get("classes") or []),
        "seconds": _number(status.get("seconds")),
        # AUC of what the method learnt; NaN where it says nothing, as in records of older versions.
        "learned": _number(made.get("learned")),
        **{name: _number(made.get(name)) for name in COSTS},
        "fit_cached": bool(made.get("fit_cached")),
        "scorer": describe(config.get("scorer")),
        "bank": describe(config.get("bank")),
    }
    return _RunFiles(run, config, made, rows, samples)


def _table(
    table: pd.DataFrame, name: str, types: dict[str, str], optional: Iterable[str] = ()
) -> pd.DataFrame:
    """A table with the columns and types that reports read."""
    missing = [column for column in types if column not in table and column not in optional]
    if missing:
        raise ValueError(
            f"{name} lacks the columns {', '.join(missing)}: run the same command again, "
            "which computes the metrics again"
        )
    # Optional columns come in as NaN, others that a newer version adds are dropped.
    table = table.reindex(columns=list(types))
    if "note" in types and table["note"].hasnans:
        table["note"] = table["note"].fillna("")
    # What is of its type already, as in every record of this version, is not copied.
    others = {column: kind for column, kind in types.items() if table[column].dtype != kind}
    return table.astype(others) if others else table  # type: ignore[call-overload]


def _join(tables: dict[str, pd.DataFrame | None], types: dict[str, str]) -> pd.DataFrame:
    """The tables by their run_id below each other; None of a run that has none."""
    parts = [part.assign(run_id=run_id) for run_id, part in tables.items() if part is not None]
    if parts:
        return pd.concat(parts, ignore_index=True)
    return pd.DataFrame(
        # Typed even without rows: comparisons on untyped empty columns fail later.
        {name: pd.Series(dtype=kind) for name, kind in (types | {"run_id": "str"}).items()}
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")
