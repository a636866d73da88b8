"""The contract of a metric: a `torchmetrics.Metric` that turns walks, or an observation of them,
into rows.

A metric is updated with `Trajectories` (an `ObservationMetric` with the result of an observation)
and computes a `MetricResult`. Its states are float64 sums, or lists of tensors with one row per
start, which torchmetrics concatenates. A metric can therefore be updated in batches, merged with
`merge_state`, used in a `MetricCollection`, and computed across processes. A concatenated state is
sorted by start before anything is computed, so the numbers do not depend on how the starts are
split or ordered.

Two notes for users of torchmetrics. If several processes run, each of them must call `update` at
least once; an empty table of walks is enough. Names, such as those of the other attributes, are
stored as JSON in a tensor of bytes, because a state cannot hold text.
"""

from __future__ import annotations

import abc
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
from editbench.base.errors import EditbenchError, UnknownName, WrongType
from editbench.base.validation import check_at_least, check_multiple, check_positive
from editbench.stats.intervals import NO_INTERVAL, Interval
from editbench.walk.observed import Observed
from editbench.walk.rows import KEY_COLUMNS, ROW_TYPES, SAMPLE_TYPES, empty_key
from editbench.walk.rows import NAN as NAN
from editbench.walk.rows import ROW_COLUMNS as ROW_COLUMNS
from editbench.walk.rows import SAMPLE_COLUMNS as SAMPLE_COLUMNS
from editbench.walk.rows import join_notes as join_notes
from editbench.walk.trajectory import Trajectories

if TYPE_CHECKING:  # a metric must not load a generator
    from editbench.walk.observation import Observation, ObservationContext

# Remedy for a KeyError of a metric.
UNDECLARED = "a column that an observation adds to the walks is declared by `reads = (NAME,)`"
MOST_BINS = 10_000  # of a curve


def count_bins(stop: float, width: float) -> int:
    """The number of bins of `width` that cover [0, stop), two options of a metric.

    Raises:
        EditbenchError: the width is not positive, `stop` is not a multiple of it, or there would be
            more bins than MOST_BINS.
    """
    check_positive("width", width)
    check_at_least("stop", stop, width)
    if stop / width > MOST_BINS:
        raise EditbenchError(
            f"stop={stop} and width={width} make more than {MOST_BINS} bins: raise the width"
        )
    check_multiple("stop", stop, "width", width)
    return round(stop / width)


class MetricResult(NamedTuple):
    """What a metric computes.

    It is a named tuple and not a frozen dataclass, because torchmetrics passes results through a
    function that rejects frozen dataclasses.

    Attributes:
        rows: one number per row, with the columns ROW_COLUMNS. `metric` is the name of the number
            and `variant` says what it refers to, such as another attribute. `network`, `resize`,
            `reference`, `n` and `effect` are what an estimate depends on, and `x` is the position
            on a curve. Fields that do not apply are '' or NaN. `low` and `high` are the 95 %
            interval. `count` is the number of starts, points or blocks that the value is a mean of.
            `note` says why the number should not be relied on.
        samples: one value per start, with the columns SAMPLE_COLUMNS, for paired differences
            between methods.
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
            value: the number, or NaN if there is none.
            count: number of starts, points or blocks that it is a mean of.
            interval: (low, high), 95 %.
            note: why the number should not be relied on, or ''.
            key: other fields of KEY_COLUMNS, such as `x` or `variant`.

        Raises:
            UnknownName: a field that does not exist.
        """
        _check_key(key)
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
        """Add one value per start; starts without a finite value are left out.

        Args:
            metric: name of the number.
            start: (n,) bank indices of the starts, or numbers of blocks of samples.
            value: (n,) values.
            key: other fields of KEY_COLUMNS.

        Raises:
            UnknownName: a field that does not exist.
        """
        _check_key(key)
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


def _check_key(key: Mapping[str, Any]) -> None:
    """Raise UnknownName for a field that tables of rows and samples would drop."""
    for name in key:
        if name not in KEY_COLUMNS:
            raise UnknownName("field of a number", name, KEY_COLUMNS)


def _refusing_tables(update: Callable[..., None]) -> Callable[..., None]:
    """Wrap `update` so that a pandas table raises an error that says what to pass instead."""

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
    `add_state`), appends to them in `update(trajectories)` and returns a `MetricResult` from
    `compute()`.

    Attributes:
        name: the metric's option in the configuration group `metric`.
        version: to be raised when the numbers change, so that a table never mixes old and new ones.
        citation: paper, with equation, table or figure.
        produces: name of each number in rows and samples -> whether higher is better (None:
            neither).
        higher_is_better: the same for the first name, as torchmetrics defines it.
        reads: columns of the walks that an observation of the kind `DuringWalk` adds. If a job was
            run without this observation, `update` is not called, and the metric's row says why.
    """

    full_state_update = False  # a batch does not depend on the batches before it
    is_differentiable = False

    name: str
    version: int = 1
    citation: str = ""
    produces: Mapping[str, bool | None] = {}
    reads: tuple[str, ...] = ()

    def __init__(self, **options: Any) -> None:
        # The letters of a text would be taken for names.
        if isinstance(self.reads, str):
            raise EditbenchError(
                f"{type(self).__name__}.reads must be a tuple: reads = ({self.reads!r},)"
            )
        # The cache of torchmetrics would outlive `merge_state`.
        super().__init__(compute_with_cache=False, **options)

    def check(self, attributes: Attributes, attribute: str) -> None:
        """Reject options that name something that does not exist; called before the job; optional.

        Args:
            attributes: the evaluated attributes.
            attribute: the target attribute of the job.

        Raises:
            EditbenchError: an option is wrong; the job fails with this message.
        """

    @abc.abstractmethod
    def update(self, trajectories: Trajectories) -> None:
        """Add the walks of some starts. All steps of a start must come in the same call."""

    @abc.abstractmethod
    def compute(self) -> MetricResult:
        """Compute the numbers of all starts that were added, with their intervals."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # torchmetrics wraps `update` itself, so the arguments are checked by wrapping it here.
        if "update" in cls.__dict__:
            cls.update = _refusing_tables(cls.update)  # type: ignore[method-assign]

    # -- states -----------------------------------------------------------------------------------
    def add_columns(self, *names: str) -> None:
        """Declare states with one row per start, concatenated over batches and processes."""
        for name in names:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def add_facts(self, *names: str) -> None:
        """Declare states for values that are equal in every batch, such as names of attributes."""
        # Facts are concatenated, one line of JSON per update, and compared when they are read.
        self.add_columns(*names)

    def append(self, **columns: np.ndarray) -> None:
        """Append rows to states of `add_columns`.

        Args:
            columns: state -> (n, ...) array. The array is copied and keeps its dtype.
        """
        for name, values in columns.items():
            getattr(self, name).append(torch.tensor(np.asarray(values), device=self.device))

    def keep_fact(self, name: str, value: object) -> None:
        """Append a value to a state of `add_facts`.

        Args:
            name: of the state.
            value: that JSON can hold; it must be equal in every update, see `fact`.
        """
        # A line for each update, so that `fact` can compare them; JSON writes no line break itself.
        line = json.dumps(value).encode() + b"\n"
        getattr(self, name).append(torch.tensor(list(line), dtype=torch.uint8, device=self.device))

    def column(self, name: str) -> np.ndarray:
        """All rows of a state of `add_columns`, in the order of the updates.

        Raises:
            EditbenchError: `update` has not been called yet.
        """
        parts = getattr(self, name)
        if isinstance(parts, Tensor):  # torchmetrics has concatenated the states of all processes
            parts = [parts]
        if not parts:
            raise EditbenchError(f"{type(self).__name__}.compute() was called before update()")
        return torch.cat(parts).cpu().numpy()

    def sorted_columns(self, *names: str) -> dict[str, np.ndarray]:
        """The column `start` and the columns `names`, with rows in ascending order of `start`."""
        start = self.column("start")
        order = np.argsort(start, kind="stable")
        columns = {"start": start[order]}
        for name in names:
            # Column-major, so that NumPy uses pairwise summation over the starts, which is more
            # exact than a running sum.
            columns[name] = np.asfortranarray(self.column(name)[order])
        return columns

    def fact(self, name: str) -> Any:
        """The value of a state of `add_facts`.

        Raises:
            EditbenchError: the updates had different values, so they belong to different runs.
        """
        lines = set(bytes(self.column(name)).splitlines())
        if len(lines) > 1:
            raise EditbenchError(
                f"{type(self).__name__} was updated with different values of '{name}': "
                "use one metric for each run"
            )
        return json.loads(lines.pop())


class ObservationMetric(Metric):
    """Base of metrics on the result of an observation.

    Only the observation sees images; the metric reads the arrays that it kept. A subclass names
    these arrays and computes its numbers in `measure`. Parts of an observation that cover different
    samples can be added one by one or in several processes.

    Attributes:
        observation: name of the observation that the metric reads.
        summed: arrays that are summed over samples, in float64.
        joined: array -> axis of its samples; these are concatenated and keep their dtype.
        shared: arrays that are equal in every part, such as the strengths.
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
            # A scalar, to which an array of any shape can be added.
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(name, default=zero, dist_reduce_fx="sum")

    def check_observation(self, observation: Observation, context: ObservationContext) -> None:
        """Reject options that do not fit the observation; called before the fit; optional.

        Args:
            observation: the job's observation with the name `self.observation`.
            context: what it may use; the editor is not fitted yet.

        Raises:
            EditbenchError: an option is wrong; the job fails with this message.
        """

    def update(self, found: Observed) -> None:  # type: ignore[override]
        """Add the result of an observation, for all samples or for some of them."""
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
                # With a new first axis the copies of several processes can be compared.
                self.append(**{name: array[None]})

    def compute(self) -> MetricResult:
        """Compute the numbers with intervals, or one row without a number that gives the reason."""
        reason = self.fact("reason")
        if not reason:
            return self.measure(self.arrays(), self.fact("meta"))
        out = ResultBuilder()
        out.add(next(iter(self.produces)), NAN, 0, note=reason)
        return out.result()

    def measure(self, arrays: dict[str, np.ndarray], meta: dict) -> MetricResult:
        """Compute the numbers with intervals; not called if the observation could not be made.

        Args:
            arrays: arrays of the observation, over all samples.
            meta: facts of the observation.
        """
        raise NotImplementedError

    def arrays(self) -> dict[str, np.ndarray]:
        """The declared arrays of the observation, combined over all updates."""
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
            EditbenchError: the parts have different values.
        """
        copies = self.column(name)
        if any(not np.array_equal(copies[0], other, equal_nan=True) for other in copies[1:]):
            raise EditbenchError(
                f"{type(self).__name__} was updated with different arrays '{name}': "
                "use one metric for each run"
            )
        return copies[0]


def mean_of(values: np.ndarray) -> float:
    """Mean of the values; NaN if there are none."""
    return float(values.mean()) if len(values) else NAN


def share(hits: int, n: int) -> float:
    """hits / n; NaN if n is 0.

    Args:
        hits: number of samples that count.
        n: number of all samples.
    """
    return hits / n if n else NAN


def start_rows(trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray]:
    """Locate the first row of each start, and the start of each row.

    Returns:
        (starts,) position of each start's step-0 row, and (rows,) position of each row's start
        among the starts.
    """
    begins = np.flatnonzero(trajectories.table["step"].to_numpy() == 0)
    owner = np.searchsorted(begins, trajectories.first_row)
    return begins, owner
