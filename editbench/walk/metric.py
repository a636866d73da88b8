"""The contract of a metric: a `torchmetrics.Metric` that turns walks, or an observation of them,
into rows.

A metric is updated with `Trajectories` (or with what an observation left, `ObservationMetric`) and
computes a `MetricResult`. Its states are lists of tensors with one row a start, which torchmetrics
concatenates, or float64 sums. So a metric can be fed in batches, merged with `merge_state`, put
into a `MetricCollection`, and computed across processes. A concatenated state is sorted by start
before anything is computed, therefore any split and any order of the starts gives the same number.

Two things a user of torchmetrics should know. In a run with several processes each process has to
call `update` at least once; an empty table of walks is enough. And names, such as those of the
other attributes, travel as JSON in a tensor of bytes, because a state cannot hold text.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torchmetrics
from torch import Tensor

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError, WrongType
from editbench.stats.intervals import NO_INTERVAL, Interval
from editbench.walk.observed import Observed
from editbench.walk.rows import NAN as NAN
from editbench.walk.rows import ROW_COLUMNS as ROW_COLUMNS
from editbench.walk.rows import ROW_TYPES, SAMPLE_TYPES, empty_key
from editbench.walk.rows import SAMPLE_COLUMNS as SAMPLE_COLUMNS
from editbench.walk.rows import join_notes as join_notes
from editbench.walk.trajectory import Trajectories

if TYPE_CHECKING:  # a metric must not load a generator
    from editbench.walk.observation import Observation, ObservationContext


class MetricResult(NamedTuple):
    """What a metric computes.

    A named tuple and no frozen dataclass: torchmetrics passes results through a function that
    refuses the latter.

    Attributes:
        rows: one number each, columns ROW_COLUMNS. `metric` is the name of the number, `variant`
            what it is about (another attribute), `network`, `resize`, `reference`, `n` and `effect`
            what an estimate depends on, `x` the place on a curve. Fields that do not apply are ''
            or NaN. `low` and `high` are the 95 % interval, `count` is how many starts, points or
            blocks the value is a mean of, and `note` says why the number should not be read.
        samples: one value a start, columns SAMPLE_COLUMNS, for paired differences between methods.
    """

    rows: pd.DataFrame
    samples: pd.DataFrame


class ResultBuilder:
    """Collects rows and samples in the order in which they are added."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._samples: list[pd.DataFrame] = []

    def add(
        self,
        metric: str,
        value: float,
        count: int,
        interval: Interval = NO_INTERVAL,
        note: str = "",
        **key: Any,
    ) -> None:
        """Add one row.

        Args:
            metric: name of the number.
            value: the number, NaN where there is none.
            count: how many starts, points or blocks it is a mean of.
            interval: (low, high), 95 %.
            note: why the number should not be read, or ''.
            key: other fields of KEY_COLUMNS, such as `x` or `variant`.
        """
        low, high = interval
        self._rows.append(
            empty_key()
            | key
            | {
                "metric": metric,
                "value": float(value),
                "low": float(low),
                "high": float(high),
                "count": float(count),
                "note": note,
            }
        )

    def add_samples(self, metric: str, start: np.ndarray, value: np.ndarray, **key: Any) -> None:
        """Add the values of single starts; starts without a finite value are left out.

        Args:
            metric: name of the number.
            start: (n,) start ids, or blocks of samples.
            value: (n,) one value each.
            key: other fields of KEY_COLUMNS.
        """
        kept = np.isfinite(value)
        columns = empty_key() | key | {"metric": metric}
        self._samples.append(pd.DataFrame(columns | {"start": start[kept], "value": value[kept]}))

    def result(self) -> MetricResult:
        """The tables, with the column types of ROW_TYPES and SAMPLE_TYPES."""
        rows = pd.DataFrame(self._rows, columns=list(ROW_COLUMNS))
        samples = [part for part in self._samples if len(part)]
        table = pd.DataFrame(columns=list(SAMPLE_COLUMNS))
        if samples:
            table = pd.concat(samples, ignore_index=True)[list(SAMPLE_COLUMNS)]
        return MetricResult(rows.astype(ROW_TYPES), table.astype(SAMPLE_TYPES))


def _refusing_tables(update: Callable[..., None]) -> Callable[..., None]:
    """`update`, with an error that says what to give where it is given a table of pandas."""

    @functools.wraps(update)
    def checked(self: Metric, *given: Any, **named: Any) -> None:
        if any(isinstance(value, pd.DataFrame) for value in (*given, *named.values())):
            wanted = 'Trajectories.load(run.folder / "trajectory.parquet")'
            if isinstance(self, ObservationMetric):
                wanted = f'read_observed(run.folder, "{self.observation}")'
            raise WrongType(f"{type(self).__name__}.update does not take a table: pass {wanted}")
        update(self, *given, **named)

    return checked


class Metric(torchmetrics.Metric):
    """Base of all metrics on trajectories.

    A subclass declares its states in `__init__` (`add_columns`, `add_facts`, or torchmetrics' own
    `add_state`), appends to them in `update(trajectories)` and gives a `MetricResult` in
    `compute()`.

    Attributes:
        name: the metric's option in the configuration group `metric`.
        version: raised when the numbers change, so that old and new ones never meet in a table.
        citation: paper, with equation, table or figure.
        produces: each name of the rows and samples -> whether higher is better (None: neither).
        higher_is_better: the same of the first name, as torchmetrics has it.
    """

    full_state_update = False  # a batch needs nothing of the batches before it
    is_differentiable = False

    name: str
    version: int = 1
    citation: str = ""
    produces: Mapping[str, bool | None] = {}

    def __init__(self, **options: Any) -> None:
        # The cache of torchmetrics would outlive `merge_state`.
        super().__init__(compute_with_cache=False, **options)

    def check(self, attributes: Attributes, attribute: str) -> None:
        """Refuse options that name what there is not; called before a job has begun, optional.

        Args:
            attributes: the evaluated ones.
            attribute: that the job edits.

        Raises:
            EditbenchError: an option is wrong; the job fails with this message.
        """

    def update(self, trajectories: Trajectories) -> None:
        """Add the walks of some starts. Every start comes whole, in one call."""
        raise NotImplementedError

    def compute(self) -> MetricResult:
        """Numbers with intervals of all starts that were added."""
        raise NotImplementedError

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # A method of torchmetrics' own cannot look at what a subclass is given.
        if "update" in cls.__dict__:
            cls.update = _refusing_tables(cls.update)  # type: ignore[method-assign]

    # -- states -----------------------------------------------------------------------------------
    def add_columns(self, *names: str) -> None:
        """Declare states with one row a start; they are concatenated over batches and processes."""
        for name in names:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def add_facts(self, *names: str) -> None:
        """Declare states that hold what is the same in every batch, such as names of attributes."""
        # Facts are concatenated, one line of JSON an update, and compared when they are read.
        self.add_columns(*names)

    def append(self, **columns: np.ndarray) -> None:
        """Append rows to states of `add_columns`.

        Args:
            columns: state -> (n, ...) array. The array is copied and keeps its type.
        """
        for name, values in columns.items():
            getattr(self, name).append(torch.tensor(np.asarray(values), device=self.device))

    def keep_fact(self, name: str, value: object) -> None:
        """Append what can be written as JSON to a state of `add_facts`."""
        line = json.dumps(value).encode() + b"\n"
        getattr(self, name).append(torch.tensor(list(line), dtype=torch.uint8, device=self.device))

    def column(self, name: str) -> np.ndarray:
        """All rows of a state of `add_columns`, in the order of the updates.

        Raises:
            EditbenchError: nothing was added yet.
        """
        parts = getattr(self, name)
        if isinstance(parts, Tensor):  # torchmetrics has concatenated the states of all processes
            parts = [parts]
        if not parts:
            raise EditbenchError(f"{type(self).__name__}.compute() was called before update()")
        return torch.cat(parts).cpu().numpy()

    def sorted_columns(self, *names: str) -> dict[str, np.ndarray]:
        """The columns `names`, rows in ascending order of the column `start`, which is among
        them."""
        start = self.column("start")
        order = np.argsort(start, kind="stable")
        columns = {"start": start[order]}
        for name in names:
            # Column by column in memory: numpy then sums over the starts pairwise, which is more
            # exact than one after the other.
            columns[name] = np.asfortranarray(self.column(name)[order])
        return columns

    def fact(self, name: str) -> Any:
        """The value of a state of `add_facts`.

        Raises:
            EditbenchError: the updates gave different values, and so belong to different runs.
        """
        lines = set(bytes(self.column(name)).splitlines())
        if len(lines) > 1:
            raise EditbenchError(
                f"{type(self).__name__} was updated with different values of '{name}': "
                "use one metric for each run"
            )
        return json.loads(lines.pop())


class ObservationMetric(Metric):
    """Base of metrics on what an observation left: pictures are looked at by the observation, never
    here.

    A subclass names its arrays and computes in `measure`. Parts of one observation, each of other
    samples, can be added one by one or in several processes.

    Attributes:
        observation: the observation that the metric reads.
        summed: arrays that add up over samples; kept in float64.
        joined: array -> axis of its samples; concatenated, type kept.
        shared: arrays that every part has alike, such as the strengths.
    """

    observation: str
    summed: tuple[str, ...] = ()
    joined: Mapping[str, int] = {}
    shared: tuple[str, ...] = ()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_facts("reason", "meta", "present")
        self.add_columns(*self.joined, *self.shared)
        for name in self.summed:
            # A number without a shape: an array of any shape can be added to it.
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(name, default=zero, dist_reduce_fx="sum")

    def check_observation(self, observation: Observation, context: ObservationContext) -> None:
        """Refuse options that do not fit the observation; called before the fit, optional.

        Args:
            observation: of the job, by the name `observation`.
            context: what it may look at; the editor is not fitted yet.

        Raises:
            EditbenchError: an option is wrong; the job fails with this message.
        """

    def update(self, found: Observed) -> None:  # type: ignore[override]
        """Add what an observation left, of all samples or of some."""
        self.keep_fact("reason", found.reason)
        self.keep_fact("meta", found.meta)
        self.keep_fact("present", sorted(found.arrays))
        for name, array in found.arrays.items():
            if name in self.summed:
                added = torch.tensor(array, dtype=torch.float64, device=self.device)
                setattr(self, name, getattr(self, name) + added)
            elif name in self.joined:
                self.append(**{name: np.moveaxis(array, self.joined[name], 0)})
            elif name in self.shared:
                # A new first axis, so that the copies of several processes can be compared.
                self.append(**{name: array[None]})

    def compute(self) -> MetricResult:
        """Numbers with intervals, or one row without a number that says why there is none."""
        reason = self.fact("reason")
        if not reason:
            return self.measure(self.arrays(), self.fact("meta"))
        out = ResultBuilder()
        out.add(next(iter(self.produces)), NAN, 0, note=reason)
        return out.result()

    def measure(self, arrays: dict[str, np.ndarray], meta: dict) -> MetricResult:
        """Numbers with intervals; never called where the observation could not look.

        Args:
            arrays: what the observation left, of all samples together.
            meta: facts that it left.
        """
        raise NotImplementedError

    def arrays(self) -> dict[str, np.ndarray]:
        """The declared arrays that the observation left, put together again."""
        found = {}
        for name in self.fact("present"):
            if name in self.summed:
                found[name] = getattr(self, name).cpu().numpy()
            elif name in self.joined:
                rows = np.moveaxis(self.column(name), 0, self.joined[name])
                found[name] = np.ascontiguousarray(rows)
            elif name in self.shared:
                found[name] = self._only(name)
        return found

    def _only(self, name: str) -> np.ndarray:
        """The value of a shared array.

        Raises:
            EditbenchError: the parts have different ones.
        """
        copies = self.column(name)
        if any(not np.array_equal(copies[0], other, equal_nan=True) for other in copies[1:]):
            raise EditbenchError(
                f"{type(self).__name__} was updated with different arrays '{name}': "
                "use one metric for each run"
            )
        return copies[0]


def mean_of(values: np.ndarray) -> float:
    """Mean of the values, NaN where there are none."""
    return float(values.mean()) if len(values) else NAN


def share(hits: int, n: int) -> float:
    """hits / n, NaN of none."""
    return hits / n if n else NAN


def start_rows(trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray]:
    """Where each start's walk begins, and which start each row belongs to.

    Returns:
        (starts,) position of the row of step 0, and (rows,) position of the row's start among them.
    """
    begins = np.flatnonzero(trajectories.table["step"].to_numpy() == 0)
    owner = np.searchsorted(begins, trajectories.first_row)
    return begins, owner
