"""Reading the records of a folder into tables. Only means over seeds are computed here.

A record that cannot be read is listed as a problem, with its name and the reason; all others are
still returned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from editbench.base.compute_options import is_gpu
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import usable_folder
from editbench.report.mixed import NUMBER_COLUMNS, mixed_networks, mixed_parts, mixed_versions
from editbench.report.newest import notes_of, older_records
from editbench.report.no_control import count_failures, failures_by_seed
from editbench.report.problem import Problem
from editbench.report.seeds import pool_seeds
from editbench.report.settings import add_settings
from editbench.run.record import Record
from editbench.walk.observed import Observed, observation_file, read_observed
from editbench.walk.rows import ROW_TYPES as METRIC_ROW_TYPES
from editbench.walk.rows import SAMPLE_TYPES

# Required keys of status.json.
STATUS_KEYS = ("status", "method", "attribute", "generator")
# Columns that a record adds to a metric's rows; `group` is the metric's option in the
# configuration.
ADDED_TYPES = {"group": "str", "version": "float64", "higher_is_better": "object"}
ROW_TYPES = METRIC_ROW_TYPES | ADDED_TYPES
VERSION_TYPES = {name: ROW_TYPES[name] for name in ("metric", "version")}
NUMBER_TYPES = {name: ROW_TYPES[name] for name in NUMBER_COLUMNS}
# Type of a column in a report -> its type in Arrow. The only objects are true, false and missing.
ARROW_TYPES = {
    "str": pa.large_string(),
    "float64": pa.float64(),
    "int64": pa.int64(),
    "object": pa.bool_(),
}
# Columns that pooling adds: the number of seeds, and their part of a number's variance.
SEED_COLUMNS = {"seeds": 1, "seed_variance": 0.0}
# Versions that wrote records without the key `floor` had only this floor.
OLD_FLOOR = "random"
# Costs in the provenance of a record. editbench.report.costs has those that tables show.
COST_KEYS = (
    "fit_seconds",
    "walk_seconds",
    "edits_per_second",
    "generator_calls",
    "labels_used",
    "peak_memory_mb",
)
# Columns of `Results.runs` before settings are added.
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
    "no_control",
    "seconds",
    "classes",
    "learned",
    *COST_KEYS,
    "fit_cached",
    "scorer",
    "bank",
)


@dataclass(frozen=True, eq=False)  # hashable by identity, so that its tables can be cached
class Results:
    """All records of a folder.

    Args:
        root: the folder.
        runs: one row per run, sorted by setting, attribute and method, with these columns: run_id
            (the folder's name), the keys of status.json, the costs of provenance.json (NaN if
            unknown), scorer, bank; from editbench.report.settings `setting` (runs of one setting
            can be compared) and `label` (the method, and its variant if there are several); `floor`
            (whether the method is a floor); `seeds`, `run_ids` and `seeds_asked` (what the row is
            over) and `no_control` (how many of the seeds found none). If seeds are pooled, a row is
            a method and attribute and has the run_id of its first seed with a control.
        rows: all metric rows, with run_id and SEED_COLUMNS.
        samples: all values of single starts, with run_id.
        configs: run_id -> operative configuration.
        provenance: run_id -> provenance.
        problems: what could not be read.
        notes: which records were left out in favour of newer ones of the same jobs.
        by_seed: if seeds are pooled, (run_id, `key_of` of an accuracy or AD) -> values (starts,
            seeds) of the starts that have one for every seed.
    """

    root: Path
    runs: pd.DataFrame
    rows: pd.DataFrame
    samples: pd.DataFrame
    configs: dict[str, dict] = field(default_factory=dict)
    provenance: dict[str, dict] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    by_seed: dict[tuple[str, tuple], pd.DataFrame] = field(default_factory=dict)

    @cached_property
    def run_records(self) -> list[dict[str, Any]]:
        """The rows of `runs` as dicts. They are shared and must not be changed."""
        # A report asks for them two dozen times, and pandas makes them column by column.
        return self.runs.to_dict("records")  # type: ignore[return-value]

    def with_failures(self) -> Results:
        """The results with runs that found no control as failures, see editbench.report.no_control."""
        if not (self.runs["no_control"] > 0).any():
            return self
        # Runs that differ only in the seed walk from the same starts.
        runs = add_settings(self.runs, self.configs, by_seed=False)
        rows, samples = count_failures(runs, self.rows, self.samples)
        by_seed = self.by_seed | failures_by_seed(runs, samples)
        return replace(self, rows=rows, samples=samples, by_seed=by_seed)

    def kept(self, which: pd.Series) -> Results:
        """The results of some rows of `runs`, without anything of the others.

        Args:
            which: one bool per row.
        """
        runs = self.runs[which].reset_index(drop=True)
        # The tables have only the first run of pooled seeds; the other mappings have all of them.
        keep = set(runs["run_id"])
        seeds = {run for ids in runs["run_ids"] for run in ids}
        return replace(
            self,
            runs=runs,
            rows=self.rows[self.rows["run_id"].isin(keep)],
            samples=self.samples[self.samples["run_id"].isin(keep)],
            configs={run: one for run, one in self.configs.items() if run in seeds},
            provenance={run: one for run, one in self.provenance.items() if run in seeds},
            by_seed={key: values for key, values in self.by_seed.items() if key[0] in keep},
        )

    def by_setting(self) -> list[tuple[str, Results]]:
        """(name, results) of each setting, sorted by name."""
        names = sorted(set(self.runs["setting"]))
        # The same object, whose tables are cached already.
        if len(names) == 1:
            return [(names[0], self)]
        return [(name, self.kept(self.runs["setting"] == name)) for name in names]

    def observation(self, run_id: str, name: str) -> Observed | None:
        """The data of an observation in a run; None if the run had no such observation.

        Args:
            run_id: name of the record.
            name: of the observation.

        Returns:
            If the file is damaged, an `Observed` that holds only the reason.
        """
        # A missing file is normal, while a damaged one is an error.
        file = observation_file(self.root / run_id, name)
        if not Record.read(self.root / run_id).has(file.name):
            return None
        return read_observed(self.root / run_id, name)

    def strips(self, run_id: str) -> dict[str, Any] | None:
        """Arrays of the stored images; None if the run has none.

        Raises:
            EditbenchError: the file is unreadable.
        """
        record = Record.read(self.root / run_id)
        if not record.has(Record.PICTURES):
            return None
        path = record.path(Record.PICTURES)
        try:
            arrays = load_file(path)
            images = arrays["images"]
            shape = images.shape
            # (starts, frames, C, H, W), with one value per frame. With other shapes, numbers could
            # be shown below the wrong images.
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
    """Read the records in a folder.

    Args:
        root: folder of the records.
        only: run ids to read; None for all.
        by_seed: whether each seed is a separate row and setting. Otherwise the seeds of a method on
            an attribute are pooled into one row, see editbench.report.seeds.
        newest: whether to read only one record of each job, see editbench.report.newest.

    Raises:
        EditbenchError: the folder is missing, has no record at all, or has a name that is not UTF-8.
    """
    root = Path(root)
    if not root.is_dir():
        found = "is a file" if root.is_file() else "does not exist"
        raise EditbenchError(
            f"the runs folder '{root}' {found}; name the folder that a sweep wrote to"
        )
    # Before any record is read, which would count as damaged.
    usable_folder(root)
    read: dict[str, _RunFiles] = {}
    problems: list[Problem] = []
    parts: dict[str, Any] = {}
    # Sorted, since the order of a folder's entries depends on the file system.
    for folder in sorted(root.iterdir()):
        # The folder also contains the report.
        if not Record.is_record(folder) or (only is not None and folder.name not in only):
            continue
        try:
            read[folder.name] = _read(Record.read(folder), parts)
        except Exception as error:  # whatever the damage, the other runs are still reported
            problems.append(Problem(folder.name, f"{type(error).__name__}: {error}"))
    # If there are problems, the caller can still report the damaged folders.
    if not read and not problems:
        if (root / Record.STATUS).is_file():
            raise EditbenchError(f"'{root}' is a single run; name the folder that holds it")
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
    # Needs all runs at once, since settings are named by their differences.
    table = add_settings(table, configs, by_seed)
    # Before pooling, since a mean over seeds would hide different versions.
    versions = {run_id: one.versions for run_id, one in read.items()}
    problems += mixed_versions(table, _join(versions, VERSION_TYPES))
    problems += mixed_networks(table, provenance)
    numbers = {run_id: one.numbers for run_id, one in read.items()}
    parts_of = {run_id: one.part_hashes for run_id, one in read.items()}
    problems += mixed_parts(table, parts_of, _join(numbers, NUMBER_TYPES))
    read_tables = partial(_read_tables, root)
    values: dict[tuple[str, tuple], pd.DataFrame] = {}
    if by_seed:
        rows, samples = read_tables(table.loc[table["status"] == "done", "run_id"])
    else:
        table, rows, samples, values = pool_seeds(table, read_tables, ("learned", *COST_KEYS))
    return Results(
        root, table, rows, samples, configs, provenance, tuple(problems), tuple(notes), values
    )


def require_readable(results: Results) -> None:
    """Raise EditbenchError if all records of a folder are damaged."""
    if results.runs.empty:
        named = "; ".join(f"{problem.name} ({problem.reason})" for problem in results.problems)
        raise EditbenchError(
            f"no run in '{results.root}' is readable: {named}. Delete these folders and run the jobs "
            "again"
        )


def option_name(node: object) -> str:
    """The name of the option that was chosen in a group of a configuration; '' if there is none.

    Args:
        node: the group's part of the configuration.
    """
    if isinstance(node, dict):
        return str(node.get("name") or "")
    return "" if node is None else str(node)


class _RunFiles(NamedTuple):
    """What a report reads from one record.

    Attributes:
        run: its row of `Results.runs`, without columns that depend on other runs.
        config: operative configuration.
        provenance: of a run that was skipped or failed that of its fit; {} if it had none.
        versions: its metrics and the versions of their code; None if the run is not done.
        numbers: its numbers, NUMBER_TYPES; None likewise.
        part_hashes: of its record; {} likewise.
    """

    run: dict[str, Any]
    config: dict
    provenance: dict
    versions: pa.Table | None
    numbers: pa.Table | None
    part_hashes: dict[str, str]


def _read(record: Record, parts: dict[str, Any]) -> _RunFiles:
    """Read one record. Raises an error that says what is wrong with it.

    Its tables are checked and not kept: the tables of all records may exceed the memory.

    Args:
        record: to read.
        parts: of the records before, see `_share`.
    """
    status = record.status
    # Other programs may write status.json, so its types are checked.
    missing = [key for key in STATUS_KEYS if not isinstance(status.get(key), str)]
    if missing:
        raise ValueError(f"{Record.STATUS} lacks {', '.join(missing)}")
    config = _share(record.config(), parts)
    made = _share(record.provenance(), parts)
    versions = None
    numbers = None
    part_hashes: dict[str, str] = {}
    # The tables of a failed job may be incomplete and are not results.
    if status["status"] == "done":
        rows, _ = _own_tables(record)
        versions = rows.group_by(list(VERSION_TYPES)).aggregate([])
        numbers = rows.group_by(list(NUMBER_TYPES)).aggregate([])
        part_hashes = record.part_hashes()
    seed = int(status.get("seed") or 0)
    floor = status.get("floor")
    run = {
        "run_id": record.folder.name,
        **{key: status[key] for key in STATUS_KEYS},
        "floor": floor if isinstance(floor, bool) else status["method"] == OLD_FLOOR,
        "reason": status.get("reason") or "",
        "no_control": int(bool(status.get(Record.NO_CONTROL))),
        "seed": seed,
        "seeds": (seed,),
        "seeds_asked": 1,
        "run_ids": (record.folder.name,),
        "judged_in": status.get("judged_in") or "image",
        "leaking": bool(status.get("leaking")),
        "experiment": status.get("experiment") or "",
        "classes": list(status.get("classes") or []),
        "seconds": _number(status.get("seconds")),
        # AUC of what the method learnt; NaN if not recorded, as by older versions.
        "learned": _number(made.get("learned")),
        **_costs(made),
        "fit_cached": bool(made.get("fit_cached")),
        "scorer": option_name(config.get("scorer")),
        "bank": option_name(config.get("bank")),
    }
    return _RunFiles(run, config, made, versions, numbers, part_hashes)


def _share(content: dict, parts: dict[str, Any]) -> dict:
    """A copy of a mapping that uses the values of earlier records where they are equal.

    The records of a sweep differ in few values. Without sharing, their configurations and
    provenance would take most of the memory that a record needs.

    Args:
        content: configuration or provenance; must not be changed afterwards.
        parts: text of a value -> the first value with this text; the new ones are added.
    """
    return {key: parts.setdefault(repr(value), value) for key, value in content.items()}


def _own_tables(record: Record) -> tuple[pa.Table, pa.Table]:
    """The metric rows of a record, and its values of single starts."""
    rows = _table(record.path(Record.ROWS), ROW_TYPES, ("version", "higher_is_better"))
    samples = _table(record.path(Record.SAMPLES), SAMPLE_TYPES)
    return rows, samples


def _read_tables(root: Path, run_ids: Iterable[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows and samples of some runs, sorted by run id.

    Args:
        root: folder of the records.
        run_ids: of finished runs.
    """
    rows: dict[str, pa.Table | None] = {}
    samples: dict[str, pa.Table | None] = {}
    for run_id in sorted(run_ids):
        rows[run_id], samples[run_id] = _own_tables(Record.read(root / run_id))
    return _join(rows, ROW_TYPES).assign(**SEED_COLUMNS), _join(samples, SAMPLE_TYPES)


def _table(file: Path, types: dict[str, str], optional: Iterable[str] = ()) -> pa.Table:
    """Read a table with the columns and types that reports need.

    Arrow, since a pandas table of each record would take most of the time of a report.
    """
    with pq.ParquetFile(file) as source:
        present = set(source.schema_arrow.names)
        missing = [column for column in types if column not in present and column not in optional]
        if missing:
            raise BadFile(
                f"{file} lacks the columns {', '.join(missing)}, as records of older versions do: "
                "the `editbench run` that made it computes them again; if it makes a new record "
                f"instead, delete {file.parent}"
            )
        # Unknown columns, of newer versions, are not read. The tables are too small for threads.
        table = source.read([name for name in types if name in present], use_threads=False)
    columns = []
    for name, kind in types.items():
        if name not in present:
            columns.append(pa.nulls(len(table), ARROW_TYPES[kind]))
            continue
        values = table[name].cast(ARROW_TYPES[kind])
        if kind == "int64" and values.null_count:
            raise ValueError(f"{file.name} has rows without a value in the column {name}")
        columns.append(pc.fill_null(values, "") if name == "note" else values)
    return pa.Table.from_arrays(columns, list(types))


def _join(tables: dict[str, pa.Table | None], types: dict[str, str]) -> pd.DataFrame:
    """Concatenate tables and add the column run_id. A run without a table has None."""
    types = types | {"run_id": "str"}
    parts = []
    for run_id, table in tables.items():
        if table is not None:
            names = pa.repeat(pa.scalar(run_id, ARROW_TYPES["str"]), len(table))
            parts.append(table.append_column("run_id", names))
    if not parts:
        # Typed even if empty, since comparisons on untyped empty columns fail later.
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in types.items()})
    # In one piece, since selecting rows of a column in many pieces is slow.
    joined = pa.concat_tables(parts).combine_chunks().to_pandas()
    # Without missing values, objects have become booleans, which cannot be joined to missing ones.
    others = {name: kind for name, kind in types.items() if joined[name].dtype != kind}
    return joined.astype(others)  # type: ignore[call-overload]


def _costs(made: Mapping[str, Any]) -> dict[str, float]:
    """The costs of a run; NaN for those that its record does not have.

    Args:
        made: the provenance of the run.
    """
    costs = {name: _number(made.get(name)) for name in COST_KEYS}
    # On a CPU this is the peak of the worker process, which still holds the memory of the jobs
    # before. It depends on the order of the jobs, so it is no cost of the method.
    if not is_gpu(made.get("device", "cpu")):
        costs["peak_memory_mb"] = float("nan")
    return costs


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")
