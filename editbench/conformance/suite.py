"""The suites of editors and of metrics: every check by its short name, with its meaning and its
place in the contract.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editbench.base.errors import UnknownName
from editbench.conformance import (
    checks_blind,
    checks_directions,
    checks_fit,
    checks_metric,
    checks_state,
    checks_walk,
)
from editbench.conformance.checks_metric import MetricSubject
from editbench.conformance.subject import Subject
from editbench.conformance.testbeds import LatentJudge, PictureJudge
from editbench.conformance.verdicts import CheckResult, Skipped, Verdict, describe_error
from editbench.walk.editor import Editor
from editbench.walk.metric import UNDECLARED, Metric


@dataclass(frozen=True)
class Check:
    """One check of the suite."""

    name: str
    member: str  # of the module of the contract
    meaning: str
    run: Callable[[Any], str]  # gives a remark when it passes, and raises a Verdict otherwise
    module: str = "editbench.walk.editor"  # where the contract stands

    @property
    def place(self) -> str:
        """The dotted name of the part of the contract."""
        return f"{self.module}.{self.member}"


# In the order of an editor's life: it is constructed, fitted, walked, stored. Each broken method of
# the tests fails a single check, so a check must not fail for a fault that another one looks for.
_ALL = (
    Check(
        "constructs",
        "Editor.__init__",
        "an Editor is constructed from defaults and names its space and unit",
        checks_fit.constructs,
    ),
    Check(
        "fit",
        "Editor.fit",
        "it learns from attributes of two classes and of many, and reports what it read",
        checks_fit.fit,
    ),
    Check(
        "identity",
        "Editor.codes",
        "before the first step, exactly the start's own image is decoded",
        checks_walk.identity,
    ),
    Check(
        "moves",
        "Editor.step",
        "a step gives new, finite codes like those of the walk",
        checks_walk.moves,
    ),
    Check("batch", "Editor.step", "a step depends on each sample alone", checks_walk.batch),
    Check(
        "determinism",
        "Editor.fit",
        "one data.seed, one result, whatever the global random state",
        checks_fit.determinism,
    ),
    Check(
        "pure",
        "Editor.step",
        "the same step twice gives the same codes, and nothing that was given is altered",
        checks_walk.pure,
    ),
    Check(
        "dtype_device",
        "Editor.step",
        "codes keep the dtype and the device of the walk",
        checks_walk.dtype_device,
    ),
    Check("state", "Editor.state", "a stored fit restores the editor exactly", checks_state.state),
    Check(
        "blind",
        "Editor.fit",
        "neither the judge nor the test split is looked at",
        checks_blind.blind,
    ),
    Check(
        "skip",
        "Editor.check",
        "what cannot be served is Unsupported, with a reason",
        checks_state.skip,
    ),
    Check(
        "multi_class",
        "Editor.step",
        "different targets among many classes give different edits, or Unsupported",
        checks_walk.multi_class,
    ),
    Check(
        "directions",
        "Editor.fixed_directions",
        "a fixed set of directions, if there is one, follows from the data and starts at the sample",
        checks_directions.directions,
    ),
    Check(
        "scores",
        "Editor.class_scores",
        "what was fitted scores the classes in the tune split, if it gives scores",
        checks_fit.scores,
    ),
    Check("costs", "FitReport", "decodes and labels are counted", checks_fit.costs),
    # A warning at most: a control without knowledge steers nothing, and is sound.
    Check(
        "steers",
        "Editor.step",
        "more starts move towards their target than by chance (not required)",
        checks_walk.steers,
    ),
)
CHECKS = {check.name: check for check in _ALL}


def _of_metrics(name: str, member: str, meaning: str, run: Callable[[Any], str]) -> Check:
    return Check(name, member, meaning, run, "editbench.walk.metric")


_ALL_METRIC = (
    _of_metrics(
        "constructs",
        "Metric",
        "a Metric is constructed from defaults, and names itself and what it produces",
        checks_metric.constructs,
    ),
    _of_metrics(
        "rows",
        "MetricResult",
        "rows have their columns, a key of their own, and the number inside its interval",
        checks_metric.rows,
    ),
    _of_metrics(
        "samples",
        "MetricResult",
        "samples are one finite value per start",
        checks_metric.samples,
    ),
    _of_metrics(
        "classes",
        "Metric.update",
        "attributes of many classes, ordered ones too, are measured",
        checks_metric.classes,
    ),
    _of_metrics(
        "one_attribute",
        "Metric.update",
        "a job with no other attribute is measured",
        checks_metric.one_attribute,
    ),
    _of_metrics("no_starts", "Metric.compute", "no starts give no number", checks_metric.no_starts),
    _of_metrics(
        "diverging",
        "Metric.update",
        "walks that become NaN spoil no number",
        checks_metric.diverging,
    ),
    _of_metrics(
        "order",
        "Metric.sorted_columns",
        "the order of the starts does not matter",
        checks_metric.order,
    ),
    _of_metrics(
        "batches",
        "Metric.add_columns",
        "the number of starts per update does not matter",
        checks_metric.batches,
    ),
    _of_metrics(
        "merge",
        "Metric.add_columns",
        "two halves, merged, are the whole",
        checks_metric.merge,
    ),
    _of_metrics(
        "reset", "Metric.compute", "a reset leaves nothing of the run before", checks_metric.reset
    ),
    _of_metrics(
        "determinism",
        "Metric.compute",
        "one result, whatever the global random state",
        checks_metric.determinism,
    ),
    _of_metrics("pure", "Metric.update", "the walks are not altered", checks_metric.pure),
    _of_metrics(
        "reason",
        "ObservationMetric.compute",
        "an observation that was not made is a row with its reason",
        checks_metric.reason,
    ),
    _of_metrics(
        "figure",
        "MetricResult",
        "a figure, if there is one, is drawn, and nothing where there are no rows",
        checks_metric.figure,
    ),
)
METRIC_CHECKS = {check.name: check for check in _ALL_METRIC}


def conform(make: Callable[[], Editor], only: Sequence[str] = ()) -> list[CheckResult]:
    """Run the suite on an editor.

    Args:
        make: gives a new editor at every call.
        only: names of the checks to run; none for all.

    Returns:
        One result for each check. An editor's own exceptions become results.

    Raises:
        UnknownName: there is no such check.
    """
    chosen = _chosen(CHECKS, only)
    with tempfile.TemporaryDirectory(prefix="editbench-conform-") as folder:
        subject = Subject(make, Path(folder))
        with subject.watch.trap(LatentJudge, PictureJudge):
            return _run(CHECKS["constructs"], subject, chosen)


def conform_metric(
    make: Callable[[], Metric],
    only: Sequence[str] = (),
    figure: Callable[..., Any] | None = None,
) -> list[CheckResult]:
    """Run the suite on a metric.

    Args:
        make: gives a new metric at every call.
        only: names of the checks to run; none for all.
        figure: draws the metric in a report; None where it brings none.

    Returns:
        One result for each check. A metric's own exceptions become results.

    Raises:
        UnknownName: there is no such check.
    """
    chosen = _chosen(METRIC_CHECKS, only)
    return _run(METRIC_CHECKS["constructs"], MetricSubject(make, figure), chosen)


def _chosen(checks: Mapping[str, Check], only: Sequence[str]) -> list[Check]:
    for name in only:
        if name not in checks:
            raise UnknownName("check", name, checks)
    return [check for check in checks.values() if check.name in only or not only]


def _run(
    constructs: Check, subject: Subject | MetricSubject, chosen: Sequence[Check]
) -> list[CheckResult]:
    # Every other check needs an object, so this one always runs.
    first = _result(constructs, subject)
    results = []
    for check in chosen:
        if check.name == "constructs":
            results.append(first)
        elif first.status == "failed":
            reason = "there is nothing to check; see `constructs`"
            results.append(_as_result(check, "skipped", reason))
        else:
            results.append(_result(check, subject))
    return results


def _result(check: Check, subject: Subject | MetricSubject) -> CheckResult:
    try:
        return _as_result(check, "passed", check.run(subject))
    except Skipped as verdict:
        return _as_result(check, "skipped", str(verdict))
    except Verdict as verdict:
        place = f"See {check.place}: {check.meaning}."
        return _as_result(check, verdict.status, f"{verdict}\n{place}")
    except Exception as error:
        # Code of the editor that the check did not expect to fail.
        fix = "the code at that line"
        if type(error) is KeyError and isinstance(subject, MetricSubject):
            fix += f"; {UNDECLARED}"
        return _as_result(
            check,
            "failed",
            f"Found: {describe_error(error)}.\nRequired: {check.meaning}.\nFix: {fix}.\n"
            f"See {check.place}.",
        )


def _as_result(check: Check, status: str, message: str) -> CheckResult:
    return CheckResult(check.name, status, message, check.meaning, check.place)
