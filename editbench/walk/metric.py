"""The contract of a metric: a pure function of trajectories, in three steps.

update(trajectories) -> one row of sufficient statistics a start; merge is their concatenation; compute sorts them by
start, so any split or permutation of the samples gives the same number.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from editbench.base.errors import EditbenchError
from editbench.walk.observation import Observed
from editbench.walk.trajectory import Trajectories

ROW_COLUMNS = ("metric", "x", "value", "low", "high", "n", "note")
SAMPLE_COLUMNS = ("metric", "start", "value")


@dataclass(frozen=True)
class MetricResult:
    """rows: one number each, columns ROW_COLUMNS (x: position on a curve or NaN; low, high: 95 % interval; note: '' or
    why the number should not be read). samples: one value a start, columns SAMPLE_COLUMNS, for paired differences."""

    rows: pd.DataFrame
    samples: pd.DataFrame


class Metric(abc.ABC):
    """Base of all metrics. `produces` maps each name in the rows to whether higher is better (None: neither)."""

    name: str
    version: int
    citation: str = ""
    produces: dict[str, bool | None]

    @abc.abstractmethod
    def update(self, trajectories: Trajectories) -> pd.DataFrame:
        """Per-start statistics, float64, with a column 'start'."""

    def merge(self, parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(parts, ignore_index=True)

    @abc.abstractmethod
    def compute(self, stats: Any) -> MetricResult:
        """Numbers with intervals from merged statistics."""

    def __call__(self, trajectories: Trajectories) -> MetricResult:
        return self.compute(self.update(trajectories))


class ObservationMetric(Metric):
    """Base of metrics on pictures, computed from what the observation named `observation` kept."""

    observation: str

    @abc.abstractmethod
    def compute(self, stats: Observed) -> MetricResult:
        """Numbers with intervals from what the observation kept; never called where it could not look."""

    def update(self, trajectories: Trajectories) -> pd.DataFrame:
        raise EditbenchError(
            f"{self.name} reads the observation '{self.observation}', not trajectories"
        )

    def read(self, found: Observed) -> MetricResult:
        """`compute`, or one row without a number that says why there is none."""
        if not found.reason:
            return self.compute(found)
        rows = [row(next(iter(self.produces)), float("nan"), 0, note=found.reason)]
        return MetricResult(pd.DataFrame(rows, columns=list(ROW_COLUMNS)), no_samples())


def no_samples() -> pd.DataFrame:
    """An empty table of samples, of the types that full ones have."""
    kinds = {"metric": "str", "start": "int64", "value": "float64"}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})


def row(
    metric: str,
    value: float,
    n: int,
    low: float = float("nan"),
    high: float = float("nan"),
    x: float = float("nan"),
    note: str = "",
) -> dict:
    """One metric row."""
    return {
        "metric": metric,
        "x": x,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "note": note,
    }
