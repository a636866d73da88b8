"""Checks of a metric: its rows, its states, and what it does with walks that give no number."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from editbench.conformance.verdicts import Failed, Skipped, must_not_raise
from editbench.conformance.walks import ALONE, diverged, make_walks, many_classes, of_starts
from editbench.conformance.watch import global_seed
from editbench.figures.drawing import Drawing
from editbench.figures.panels import STYLE
from editbench.figures.theme import theme_of
from editbench.walk.metric import Metric, MetricResult, ObservationMetric
from editbench.walk.observed import Observed
from editbench.walk.rows import KEY_COLUMNS, ROW_TYPES, SAMPLE_TYPES, key_of, outside_interval
from editbench.walk.trajectory import Trajectories

BATCHES = (1, 7)  # starts per update
CLOSE = 1e-9  # relative; sums of other parts round otherwise by less
REASON = "no pictures here"
METHODS = ("mine", "random")  # whose figure is drawn


class MetricSubject:
    """The metric under test.

    Args:
        factory: gives a new metric at every call.
        figure: draws it; None where the report's own curves do.
    """

    def __init__(
        self, factory: Callable[[], Any], figure: Callable[..., Any] | None = None
    ) -> None:
        self.factory = factory
        self.figure = figure

    def make(self) -> Any:
        """A new metric."""
        with global_seed(0):
            return self.factory()

    def need_walks(self) -> None:
        """Raise Skipped for a metric that reads no walks."""
        metric = self.made
        if isinstance(metric, ObservationMetric):
            raise Skipped(f"reads the observation '{metric.observation}', not walks")

    @cached_property
    def made(self) -> Any:
        """A metric that is asked about itself; it is not updated."""
        return self.make()

    @property
    def reads(self) -> Sequence[str]:
        """Columns of an observation that its walks need."""
        return tuple(self.made.reads)

    @cached_property
    def walks(self) -> Trajectories:
        """Sound walks towards an attribute of two classes."""
        return make_walks(reads=self.reads)

    @cached_property
    def starts(self) -> np.ndarray:
        """Ids of the starts of `walks`."""
        return self.walks.table["start"].unique()

    @cached_property
    def whole(self) -> MetricResult:
        """The result for sound walks in one update."""
        return self.result(self.walks)

    def result(self, *parts: Trajectories, seed: int = 0) -> MetricResult:
        """The result of a new metric for walks in several updates.

        Args:
            parts: one update each; the metric gets copies.
            seed: of the global random state.
        """
        metric = self.make()
        with global_seed(seed):
            for part in parts:
                metric.update(copy.deepcopy(part))
            return metric.compute()


# -- construction and results ----------------------------------------------------------------------
def constructs(subject: MetricSubject) -> str:
    """Make two metrics, and check what they say about themselves."""
    with must_not_raise(
        "the constructor",
        "a metric from its defaults",
        "give every argument of __init__ a default, or --set key=value, or list it in the YAML",
    ):
        metric = subject.make()
        again = subject.make()
    if again is metric:
        raise Failed(
            "the same object twice", "a new metric at every call", "make a new instance every time"
        )
    name = getattr(metric, "name", "")
    if not isinstance(name, str) or not name:
        raise Failed(
            f"name is {name!r}",
            "the name of the metric's option in the group `metric`",
            'set `name = "my_metric"` on the class',
        )
    if not isinstance(metric.version, int) or metric.version < 1:
        raise Failed(
            f"version is {metric.version!r}",
            "a whole number from 1 on, raised when the numbers change",
            "set `version = 1` on the class",
        )
    _check_produces(metric)
    return f"{name}, version {metric.version}: {', '.join(metric.produces)}"


def _check_produces(metric: Metric) -> None:
    produces = metric.produces
    directions = (True, False, None)
    sound = isinstance(produces, Mapping) and len(produces) > 0
    if not sound or any(value not in directions for value in produces.values()):
        raise Failed(
            f"produces is {produces!r}",
            "each name of the rows and samples, and whether higher is better (None: neither)",
            'set `produces = {"my_number": False}` on the class',
        )
    first = next(iter(produces.values()))
    if metric.higher_is_better != first:
        raise Failed(
            f"higher_is_better is {metric.higher_is_better!r}, but produces says {first!r} for the "
            "first name",
            "the same direction in both",
            f"set `higher_is_better = {first!r}`",
        )


def rows(subject: MetricSubject) -> str:
    """Compute the metric for walks towards an attribute of two classes, and check the rows."""
    subject.need_walks()
    _check_rows(subject, subject.whole, "for sound walks")
    return f"{len(subject.whole.rows)} rows"


def samples(subject: MetricSubject) -> str:
    """Check the values of single starts."""
    subject.need_walks()
    found = subject.whole.samples
    _check_columns(found, SAMPLE_TYPES, "samples")
    fix = "add them with ResultBuilder.add_samples(name, start, value): one value per start"
    _check_names(subject, found, "samples")
    strange = set(found["start"]) - set(subject.starts)
    if strange:
        raise Failed(
            f"samples of {len(strange)} starts that were not given, such as {min(strange)}",
            "the ids of the column `start` of the walks",
            fix,
        )
    twice = found.duplicated([*KEY_COLUMNS, "start"])
    if twice.any():
        raise Failed(
            f"{int(twice.sum())} starts have two values of '{found['metric'][twice].iloc[0]}'",
            "one value per start and key, since methods are compared start by start",
            fix,
        )
    if not np.isfinite(found["value"]).all():
        raise Failed(
            "a sample that is not a number", "finite values; other starts are left out", fix
        )
    return f"{len(found)} values of single starts"


def classes(subject: MetricSubject) -> str:
    """Compute the metric for walks between many classes, and between ordered ones."""
    subject.need_walks()
    fix = "use Trajectories.effect, .labels and .dependency, which know the layout of the logits"
    for walks in many_classes(subject.reads):
        count = len(walks.attributes[walks.attribute].classes)
        where = f"for walks towards '{walks.attribute}' of {count} classes"
        _check_rows(subject, _computed(subject, walks, where, fix), where)
    return "attributes of many classes and ordered ones"


def one_attribute(subject: MetricSubject) -> str:
    """Compute the metric for a job whose judge knows only the edited attribute."""
    subject.need_walks()
    where = "for a job with one attribute"
    fix = "an array over the other attributes may have no column: guard means and maxima of it"
    _check_rows(
        subject, _computed(subject, make_walks(ALONE, reads=subject.reads), where, fix), where
    )
    return "no other attribute is needed"


def no_starts(subject: MetricSubject) -> str:
    """Compute the metric for a table without rows, as of a process that has no starts."""
    subject.need_walks()
    empty = of_starts(subject.walks, np.array([], np.int64))
    fix = "give NaN with count 0 and a note where there is nothing to compute (mean_of, share)"
    found = _computed(subject, empty, "without starts", fix)
    _check_rows(subject, found, "without starts")
    # A count of something is 0 then, which is no number of any start.
    numbers = found.rows[(found.rows["value"].fillna(0) != 0) | (found.rows["count"] > 0)]
    if len(numbers):
        row = numbers.iloc[0]
        raise Failed(
            f"without starts, '{row['metric']}' is {row['value']:g} over {row['count']:g}",
            "no number",
            fix,
        )
    return "no starts, no number"


def diverging(subject: MetricSubject) -> str:
    """Compute the metric where a few walks become NaN, and where all do."""
    subject.need_walks()
    fix = (
        "leave out or count as failures the rows whose `finite` is false; their logits are NaN. Say "
        "in a note why there is no number"
    )
    sound = _numbers(subject.whole)
    for every, which in ((6, "a few of which diverged"), (1, "all of which diverged")):
        where = f"for walks {which}"
        found = _computed(subject, diverged(subject.walks, every), where, fix)
        _check_rows(subject, found, where)
        if every == 1:
            continue
        lost = []
        for row in found.rows.to_dict("records"):
            # A place on a curve may be left without a walk; a single number should not.
            single = math.isnan(row["x"])
            if single and not row["note"] and math.isnan(row["value"]) and key_of(row) in sound:
                lost.append(str(row["metric"]))
        if lost:
            raise Failed(
                f"{where}, '{lost[0]}' is NaN without a note",
                "the number over the other walks",
                fix,
            )
    return "walks that diverge spoil no number"


# -- states ----------------------------------------------------------------------------------------
STATES = (
    "keep one row per start in states of add_columns, or sums of add_state, and compute from "
    "sorted_columns"
)


def order(subject: MetricSubject) -> str:
    """Compute the metric for the same starts in another order."""
    subject.need_walks()
    mixed = of_starts(subject.walks, np.random.default_rng(1).permutation(subject.starts))
    _check_same(
        subject.whole,
        subject.result(mixed),
        "the starts in another order",
        "use sorted_columns, which sorts the rows by start, and draw nothing by position",
    )
    return "any order of the starts"


def batches(subject: MetricSubject) -> str:
    """Compute the metric from several updates."""
    subject.need_walks()
    starts = subject.starts
    for size in BATCHES:
        groups = [starts[first : first + size] for first in range(0, len(starts), size)]
        parts = [of_starts(subject.walks, group) for group in groups]
        _check_same(subject.whole, subject.result(*parts), f"{size} starts per update", STATES)
    return f"{', '.join(map(str, BATCHES))} starts per update"


def merge(subject: MetricSubject) -> str:
    """Merge two metrics, each with half of the starts, one of them from another process."""
    subject.need_walks()
    half = len(subject.starts) // 2
    first = subject.make()
    first.update(of_starts(subject.walks, subject.starts[:half]))
    second = subject.make()
    second.update(of_starts(subject.walks, subject.starts[half:]))
    # A metric of another process arrives as a pickle.
    second.merge_state(pickle.loads(pickle.dumps(first)))
    with global_seed(0):
        merged = second.compute()
    _check_same(
        subject.whole,
        merged,
        "two halves that were merged",
        f"{STATES}; an attribute that is no state is not merged",
    )
    return "two halves are the whole"


def reset(subject: MetricSubject) -> str:
    """Use one metric for two runs, with a reset between them."""
    subject.need_walks()
    metric = subject.make()
    metric.update(make_walks(seed=1, reads=subject.reads))
    metric.compute()
    metric.reset()
    metric.update(copy.deepcopy(subject.walks))
    with global_seed(0):
        after = metric.compute()
    _check_same(
        subject.whole,
        after,
        "a metric that was reset after another run",
        "keep nothing between updates but states, and no result in an attribute",
    )
    return "nothing is left after a reset"


def determinism(subject: MetricSubject) -> str:
    """Compute the metric under another global random state."""
    subject.need_walks()
    _check_same(
        subject.whole,
        subject.result(subject.walks, seed=1),
        "another global random state",
        'draw from editbench.base.seeding.rng(0, "name"), or use bootstrap_mean of '
        "editbench.stats.intervals",
    )
    return "the same walks, the same numbers"


def pure(subject: MetricSubject) -> str:
    """Compare the walks before and after an update."""
    subject.need_walks()
    walks = copy.deepcopy(subject.walks)
    metric = subject.make()
    metric.update(walks)
    metric.compute()
    same = walks.table.equals(subject.walks.table)
    if not same or not np.array_equal(walks.sigma, subject.walks.sigma):
        raise Failed(
            "the walks that were given are altered",
            "walks as they were: the next metric reads them too",
            "work on a copy: trajectories.table.copy()",
        )
    return "the walks stay as they are"


# -- observations and figures ----------------------------------------------------------------------
def reason(subject: MetricSubject) -> str:
    """Give a metric of an observation one that was not made, with its reason."""
    metric = subject.make()
    if not isinstance(metric, ObservationMetric):
        return "reads walks"
    metric.update(Observed(reason=REASON))
    found = metric.compute()
    _check_rows(subject, found, "for an observation that was not made")
    if np.isfinite(found.rows["value"]).any() or REASON not in " ".join(found.rows["note"]):
        raise Failed(
            "an observation that was not made yields a number, or no row with its reason",
            "a row without a number whose note is the reason",
            "compute in `measure`, which is not called then, and leave `compute` as it is",
        )
    return f"the reason of '{metric.observation}' stands in the row"


@dataclass
class FewRecords:
    """Records as a report has them, of two methods and one attribute."""

    root: Path
    runs: pd.DataFrame
    rows: pd.DataFrame
    samples: pd.DataFrame
    configs: dict[str, dict] = field(default_factory=dict)

    def observation(self, run_id: str, name: str) -> None:
        """No observation was kept."""

    def strips(self, run_id: str) -> None:
        """No pictures were kept."""


def figure(subject: MetricSubject) -> str:
    """Draw the figure of two methods, and of a report that has none of its numbers."""
    if subject.figure is None:
        return "brings no figure; numbers over x are drawn as curves"
    fix = 'return [] where records.rows holds none of the metric, and Drawing("name", ...) else'
    _draw(subject, _records(subject, []), "a report without its rows", fix)
    if isinstance(subject.make(), ObservationMetric):
        return "draws nothing where there is nothing"
    results = []
    for seed in range(len(METHODS)):
        results.append(subject.result(make_walks(seed=seed, reads=subject.reads)))
    drawings = _draw(subject, _records(subject, results), "a report of two methods", fix)
    files = [one.file for one in drawings]
    if len(set(files)) < len(files):
        raise Failed(
            f"two figures are called '{max(files, key=files.count)}'",
            "a different name for each, since they become files",
            "put what distinguishes them into Drawing.file",
        )
    return f"{len(drawings)} figures"


def _draw(subject: MetricSubject, records: FewRecords, where: str, fix: str) -> Sequence[Drawing]:
    assert subject.figure is not None
    guard = must_not_raise(f"in {where} the figure", "a list of Drawing", fix)
    with guard, matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        theme = theme_of(records.runs)
        found = list(subject.figure(records, theme))
        for one in found:
            one.draw(theme).savefig(io.BytesIO(), format="png")
    return found


def _records(subject: MetricSubject, results: Sequence[MetricResult]) -> FewRecords:
    runs = []
    rows = []
    values = []
    for method, result in zip(METHODS, results):
        run = f"{method}-a-s0"
        runs.append(
            {
                "run_id": run,
                "method": method,
                "label": method,
                "floor": method == METHODS[-1],
                "attribute": "a",
                "status": "done",
                "run_ids": [run],
            }
        )
        added = {"run_id": run, "group": subject.made.name, "version": 1.0, "seeds": 1}
        rows.append(result.rows.assign(**added))
        values.append(result.samples.assign(run_id=run))
    # Without rows the types have to be given.
    empty_rows = pd.DataFrame(columns=list(ROW_TYPES)).astype(ROW_TYPES)
    empty_values = pd.DataFrame(columns=list(SAMPLE_TYPES)).astype(SAMPLE_TYPES)
    names = ["run_id", "method", "label", "floor", "attribute", "status", "run_ids"]
    return FewRecords(
        Path("runs"),
        pd.DataFrame(runs, columns=names),
        pd.concat(rows, ignore_index=True) if rows else empty_rows.assign(run_id="", group=""),
        pd.concat(values, ignore_index=True) if values else empty_values.assign(run_id=""),
        {str(run["run_id"]): {} for run in runs},
    )


# -- requirements of a result ----------------------------------------------------------------------
def _computed(subject: MetricSubject, walks: Trajectories, where: str, fix: str) -> MetricResult:
    """The result, or Failed with the place of an exception."""
    try:
        _check_rows(subject, subject.whole, "for sound walks")
    except Failed:
        # One cause, one failed check: the others point to it.
        raise Skipped("rows for sound walks are wrong already; see `rows`") from None
    required = "rows, without a number where there is none"
    with must_not_raise(f"{where}, computing", required, fix, subject.made):
        return subject.result(walks)


def _check_rows(subject: MetricSubject, found: MetricResult, where: str) -> None:
    table = found.rows
    _check_columns(table, ROW_TYPES, "rows")
    _check_names(subject, table, "rows")
    fix = "add each number with ResultBuilder.add(name, value, count, (low, high), note, x=..., variant=...)"
    keys = [key_of(row) for row in table.to_dict("records")]
    if len(set(keys)) < len(keys):
        twice = max(keys, key=keys.count)
        raise Failed(
            f"{where}, two rows of '{twice[0]}' have the same key",
            "rows that `variant`, `x` and the other fields of the key tell apart",
            fix,
        )
    if np.isinf(table[["value", "low", "high"]].to_numpy(np.float64)).any():
        raise Failed(f"{where}, a number is infinite", "finite numbers, or NaN with a note", fix)
    outside = outside_interval(table)
    if len(outside):
        row = outside.iloc[0]
        raise Failed(
            f"{where}, '{row['metric']}' is {row['value']:g} with the interval "
            f"[{row['low']:g}, {row['high']:g}]",
            "low <= value <= high",
            fix,
        )


def _check_columns(table: object, types: Mapping[str, str], what: str) -> None:
    fix = "compute() returns ResultBuilder.result(), which makes both tables"
    if not isinstance(table, pd.DataFrame):
        raise Failed(f"{what} is a {type(table).__name__}", "a pandas DataFrame", fix)
    if list(table.columns) != list(types):
        raise Failed(
            f"{what} has the columns {', '.join(map(str, table.columns))}",
            f"{', '.join(types)}",
            fix,
        )
    numeric = [name for name, kind in types.items() if kind != "str"]
    wrong = [name for name in numeric if str(table[name].dtype) != types[name]]
    if wrong:
        raise Failed(
            f"column {wrong[0]} of {what} is {table[wrong[0]].dtype}", types[wrong[0]], fix
        )


def _check_names(subject: MetricSubject, table: pd.DataFrame, what: str) -> None:
    known = subject.made.produces
    strange = sorted(set(table["metric"]) - set(known))
    if strange:
        raise Failed(
            f"{what} hold '{strange[0]}', which `produces` does not list",
            "every name of the rows and samples in `produces`, with its direction",
            f'add "{strange[0]}": True, False or None to `produces`',
        )


def _check_same(expected: MetricResult, found: MetricResult, how: str, fix: str) -> None:
    """Raise Failed where two results differ by more than rounding."""
    required = "the same rows and samples, whatever the order and the parts"
    for what in ("rows", "samples"):
        a, b = (_by_key(getattr(one, what)) for one in (expected, found))
        if a.keys() != b.keys():
            raise Failed(
                f"with {how} there are {len(b)} {what} in place of {len(a)}", required, fix
            )
        for key, values in a.items():
            if not np.allclose(values, b[key], rtol=CLOSE, atol=CLOSE, equal_nan=True):
                raise Failed(
                    f"with {how} '{key[0]}' is {b[key][0]:.6g} in place of {values[0]:.6g}",
                    required,
                    fix,
                )


def _by_key(table: pd.DataFrame) -> dict[tuple, list[float]]:
    """Key (and start) -> the numbers of a row."""
    columns = [name for name in ("value", "low", "high", "count") if name in table]
    found = {}
    for row in table.to_dict("records"):
        key = (*key_of(row), row.get("start"))
        found[key] = [float(row[name]) for name in columns]
    return found


def _numbers(found: MetricResult) -> set[tuple]:
    """Keys of the rows that have a number."""
    return {key_of(row) for row in found.rows.to_dict("records") if math.isfinite(row["value"])}
