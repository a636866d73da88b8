"""The record of a job: ROOT/<run id>/ with status, config, provenance, trajectories, metric rows,
pictures, and the arrays of observations.

A record is written under a temporary name and renamed, so a folder with status.json is complete.
`done` and `skipped` are results and are kept; a failure is kept for reading but is not a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import OmegaConf

from editbench.base.conf import load_yaml
from editbench.base.errors import BadFile
from editbench.base.files import (
    SEAL,
    check_file,
    compare_checksum,
    read_json,
    read_seal,
    sweep_partials,
    updated_folder,
    write_atomic,
    write_json,
)

# Imported where they are used: plans and sweeps read the status of thousands of records, which
# needs neither torch nor pandas.
if TYPE_CHECKING:
    import pandas as pd

    from editbench.walk.engine import Pictures
    from editbench.walk.metric import Metric, MetricResult
    from editbench.walk.trajectory import Trajectories

MOVED_STARTS = "attributes"  # option of `starts` that is now the key `evaluated`
NEW_ENGINE_OPTIONS = {"refine": 0, "step_effect": None}  # absent from older records
REMEDY = "delete its folder and run the job again"
STATUSES = ("done", "skipped", "failed")
FRAMES = 8  # images of each start whose images are kept


@dataclass(frozen=True)
class Record:
    """The finished folder of a run. It defines the names of the files, and rejects altered files.

    Args:
        folder: of the run.
        status: content of `status.json`: done, skipped or failed, the reason, and what was run.
    """

    folder: Path
    status: dict

    STATUS: ClassVar[str] = "status.json"
    CONFIG: ClassVar[str] = "config.yaml"
    PROVENANCE: ClassVar[str] = "provenance.json"
    TRAJECTORY: ClassVar[str] = "trajectory.parquet"
    CODES: ClassVar[str] = "codes.parquet"
    ROWS: ClassVar[str] = "rows.parquet"
    SAMPLES: ClassVar[str] = "samples.parquet"
    METRICS: ClassVar[str] = "metrics.json"
    PICTURES: ClassVar[str] = "strips.safetensors"
    ORIGINALS: ClassVar[str] = "originals.parquet"
    LOG: ClassVar[str] = "log.txt"
    # Keys of the status, see the properties.
    WALKED: ClassVar[str] = "walked"
    UNOBSERVED: ClassVar[str] = "unobserved"
    NO_CONTROL: ClassVar[str] = "no_control"  # of a skipped job: whether its search found nothing
    # The codes of every step are by far the largest file and are needed only for redrawing, so
    # their checksum is verified only when they are used.
    COMPARED_ON_USE: ClassVar[tuple[str, ...]] = (CODES,)

    @property
    def final(self) -> bool:
        """Whether the record is a result. A failure is kept for reading and run again."""
        return self.status["status"] in ("done", "skipped")

    @property
    def walked(self) -> bool:
        """Whether it failed or was interrupted after its walks, which are complete and kept."""
        return bool(self.status.get(self.WALKED))

    @property
    def unobserved(self) -> bool:
        """Whether the observations after its walks are missing too, and not the metrics alone."""
        return bool(self.status.get(self.UNOBSERVED))

    @classmethod
    def is_record(cls, folder: Path) -> bool:
        """Whether a folder is a record, complete or damaged."""
        # The name of a folder that is still being written begins with a dot.
        hidden = folder.name.startswith(".")
        # One of the two files is enough: a record that lost the other is damaged, not absent.
        return not hidden and ((folder / cls.STATUS).is_file() or (folder / SEAL).is_file())

    @classmethod
    def read(cls, folder: Path) -> Record:
        """The record in a folder.

        Raises:
            BadFile: it has no record, or its status was altered.
        """
        if not folder.is_dir():
            raise BadFile(f"{folder} does not exist; give the folder of a record")
        if not (folder / SEAL).is_file():
            raise BadFile(f"{folder / SEAL} is missing: not a complete record; {REMEDY}")
        status = read_json(check_file(folder, cls.STATUS, REMEDY))
        if status.get("status") not in STATUSES:
            raise BadFile(
                f"{folder / cls.STATUS} has the status '{status.get('status')}', expected one of "
                f"{', '.join(STATUSES)}; {REMEDY}"
            )
        return cls(folder, status)

    @classmethod
    def open(cls, folder: Path) -> Record | None:
        """The record in a folder; None if it is absent or damaged, so that the job runs again."""
        try:
            record = cls.read(folder)
            # The seal lists all files of the run, so a deleted file is noticed too.
            for name, expected in read_seal(folder)["files"].items():
                if name in cls.COMPARED_ON_USE:
                    continue
                if not (folder / name).is_file():
                    return None
                compare_checksum(folder / name, expected, REMEDY)
        except BadFile:
            return None
        return record

    def path(self, name: str) -> Path:
        """The path of one of its files, after a check of its checksum.

        Raises:
            BadFile: the file is missing or was altered.
        """
        return check_file(self.folder, name, REMEDY)

    def has(self, name: str) -> bool:
        """Whether the record holds a file of this name; some runs keep no codes or pictures."""
        return name in read_seal(self.folder)["files"]

    def config(self) -> dict[str, Any]:
        """The configuration of the run; for records of earlier versions with the current keys."""
        # Not OmegaConf, whose parser takes ten times as long: `write_config` left plain values.
        value = load_yaml(self.path(self.CONFIG).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise BadFile(f"{self.folder / self.CONFIG} does not contain a mapping; {REMEDY}")
        return upgrade({str(key): item for key, item in value.items()})

    def provenance(self) -> dict[str, Any]:
        """Versions, hashes and costs; of a run that ended before its walks did only costs and notes
        of its fit, and empty if there was none."""
        return read_json(self.path(self.PROVENANCE)) if self.has(self.PROVENANCE) else {}

    def trajectories(self) -> Trajectories:
        """Every step of every start.

        Raises:
            BadFile: the file is missing, was altered, has another format or lacks a column.
        """
        from editbench.walk.trajectory import KEYS, Trajectories

        file = self.path(self.TRAJECTORY)
        found = Trajectories.load(file)
        missing = [name for name in KEYS if name not in found.table]
        if missing:
            raise BadFile(
                f"{file} lacks the columns {', '.join(missing)}, as records of older versions do; "
                f"{REMEDY}"
            )
        return found

    def rows(self) -> pd.DataFrame:
        """The rows of all metrics."""
        return self._table(self.ROWS)

    def originals(self) -> pd.DataFrame:
        """Information about the original images, if walks start from inverted images."""
        return self._table(self.ORIGINALS)

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        return pd.read_parquet(self.path(name))

    def metrics_key(self) -> str:
        """Key of the metrics' versions and options; '' if unknown."""
        return self._of_metrics().get("key", "")

    def part_hashes(self) -> dict[str, str]:
        """What its numbers were computed with; {} in records of earlier versions.

        Returns:
            'metric.NAME' -> hash of the metric's options, version and observation;
            'observation.NAME' -> hash of the options of an observation during the walk. Both
            include the source of a user's own class.
        """
        return self._of_metrics().get("parts", {})

    def _of_metrics(self) -> dict[str, Any]:
        """Content of the file METRICS; {} without it."""
        return read_json(self.path(self.METRICS)) if self.has(self.METRICS) else {}

    @contextmanager
    def updating(self, removed: Sequence[str] = ()) -> Iterator[Path]:
        """A place for new versions of some files, see `updated_folder`. Hold the lock of the folder."""
        sweep_partials(self.folder)
        with updated_folder(self.folder, removed) as place:
            yield place


def upgrade(config: dict[str, Any]) -> dict[str, Any]:
    """Convert the configuration of a record of an earlier version to the current keys.

    `evaluated` was `starts.attributes`, and options of the engine that did not exist have the value
    that leaves them out.
    """
    engine = config.get("engine")
    if isinstance(engine, dict):
        config = {**config, "engine": NEW_ENGINE_OPTIONS | engine}
    starts = config.get("starts")
    if not isinstance(starts, dict) or MOVED_STARTS not in starts:
        return config
    kept = {key: value for key, value in starts.items() if key != MOVED_STARTS}
    names = starts[MOVED_STARTS]
    if isinstance(names, str):  # one name was as good as a list of it
        names = [names]
    return {**config, "starts": kept, "evaluated": config.get("evaluated", names)}


def moved_attributes(value: object) -> str:
    """What to write in place of `starts.attributes`."""
    names = ",".join(map(str, value)) if isinstance(value, list) else str(value).strip("[]")
    return f"starts.attributes=[{names}] is no longer an option: set evaluated=[{names}]"


def write_status(folder: Path, status: str, reason: str = "", **about: object) -> None:
    """Write status.json.

    Args:
        folder: of the run.
        status: 'done', 'skipped' or 'failed'.
        reason: why it is not done; '' if it is.
        **about: further keys, as plain values: what was run.
    """
    write_json(folder / Record.STATUS, {"status": status, "reason": reason, **about})


def write_config(folder: Path, plain: dict[str, Any]) -> None:
    """Write the configuration of a run to config.yaml.

    Args:
        folder: of the run.
        plain: the resolved configuration, as plain values.
    """
    write_atomic(folder / Record.CONFIG, OmegaConf.to_yaml(OmegaConf.create(plain)))


def labelled(name: str, metric: Metric, result: MetricResult) -> MetricResult:
    """Add the columns `group`, `version` and `higher_is_better` to a result's rows.

    Args:
        name: of the metric's option, which becomes the group.
        metric: gives its version, and the direction of each number.
        result: of the metric; it is not changed.
    """
    # A direction may be None, which a column of booleans cannot hold.
    better = result.rows["metric"].map(dict(metric.produces)).astype(object)
    rows = result.rows.assign(group=name, version=metric.version, higher_is_better=better)
    return result._replace(rows=rows)


def metric_tables(results: Sequence[MetricResult]) -> dict[str, bytes]:
    """The contents of rows.parquet and samples.parquet.

    Args:
        results: of all metrics, `labelled`.
    """
    import pandas as pd

    # pandas cannot join a table without rows to others without losing the types.
    samples = [result.samples for result in results if len(result.samples)]
    # One empty table gives the file its columns where no metric has samples.
    if not samples:
        samples = [result.samples for result in results][:1]
    parts = {Record.ROWS: [result.rows for result in results], Record.SAMPLES: samples}
    return {
        name: pd.concat(tables, ignore_index=True).to_parquet() for name, tables in parts.items()
    }


def write_pictures(folder: Path, pictures: Pictures, trajectories: Trajectories) -> None:
    """Write strips.safetensors, or nothing if no image was kept.

    For each kept start it has FRAMES steps, see `_shown_steps`: images (k, FRAMES, C, H, W) uint8;
    steps, crossed, effect (k, FRAMES); starts, source, target (k,). The effect is in sigmas of the
    target attribute's log-odds. Class names are in status.json.

    Args:
        folder: of the run.
        pictures: of k starts at every step.
        trajectories: of the same walk.
    """
    import numpy as np
    import torch
    from safetensors.torch import save

    # With engine.pictures=0 no image was kept, and the record has no such file.
    if not pictures.images:
        return
    table = trajectories.table.assign(effect=trajectories.effect)
    table = table.set_index(["start", "step"]).sort_index()
    # If a step has two images, the second is used, which is that of the refined crossing.
    images = {(s, t): image for s, t, image in zip(pictures.start, pictures.step, pictures.images)}
    strips: dict[str, list] = {
        name: [] for name in ("images", "steps", "crossed", "effect", "starts", "source", "target")
    }
    for start in pictures.starts.tolist():
        walk = table.loc[start]
        stop = walk.index[walk["stopped"]]
        steps = _shown_steps(int(walk.index.max()), int(stop[0]) if len(stop) else None)
        strips["images"].append(torch.stack([images[start, step] for step in steps]))
        strips["steps"].append(torch.tensor(steps))
        strips["crossed"].append(torch.tensor(walk.loc[steps, "crossed"].to_numpy(bool)))
        strips["effect"].append(torch.tensor(walk.loc[steps, "effect"].to_numpy(np.float32)))
        strips["starts"].append(torch.tensor(start))
        for name in ("source", "target"):
            strips[name].append(torch.tensor(int(walk[name].iloc[0])))
    stacked = {name: torch.stack(parts) for name, parts in strips.items()}
    write_atomic(folder / Record.PICTURES, save(stacked))


def _shown_steps(last: int, crossing: int | None) -> list[int]:
    """The FRAMES steps of a walk whose images are kept, ascending.

    They are evenly spaced and include the source, the last step and the crossing.

    Args:
        last: step of the walk.
        crossing: the step at which it crosses; None if it does not.
    """
    import numpy as np

    # In a short walk some coincide.
    chosen = set(np.linspace(0, last, FRAMES).round().astype(int).tolist())
    if crossing is not None and crossing not in chosen:
        # It replaces its nearest neighbour, but neither the source nor the last step.
        inner = chosen - {0, last}
        chosen.remove(min(inner, key=lambda step: abs(step - crossing)))
        chosen.add(crossing)
    steps = sorted(chosen)
    # Strips have one width, so that they can be stacked: a short walk repeats its last step.
    return steps + [last] * (FRAMES - len(steps))
