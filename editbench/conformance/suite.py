"""The suite: every check by its short name, with its meaning and its place in the contract."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from editbench.base.errors import UnknownName
from editbench.conformance import (
    checks_blind,
    checks_directions,
    checks_fit,
    checks_state,
    checks_walk,
)
from editbench.conformance.subject import Subject
from editbench.conformance.testbeds import LatentJudge, PictureJudge
from editbench.conformance.verdicts import CheckResult, Skipped, Verdict, explain
from editbench.walk.editor import Editor


@dataclass(frozen=True)
class Check:
    """One check of the suite."""

    name: str
    member: str  # of editbench.walk.editor, where the contract stands
    meaning: str
    run: Callable[[Subject], str]  # gives a remark when it passes, and raises a Verdict otherwise


# In the order of an editor's life: it is constructed, fitted, walked, stored. Each broken method of
# the tests fails one of them alone, so a check must not stumble over what another one is for.
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
        "before the first step the start's own picture is decoded, exactly",
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
        "a step twice is the same step, and nothing that was given is altered",
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
        "different targets of many go different ways, or Unsupported",
        checks_walk.multi_class,
    ),
    Check(
        "directions",
        "Editor.fixed_directions",
        "a fixed set of directions, if there is one, follows from the data and starts at the sample",
        checks_directions.directions,
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


def conform(make: Callable[[], Editor], only: Sequence[str] = ()) -> list[CheckResult]:
    """Run the suite on an editor.

    Args:
        make: gives a new editor at every call.
        only: names of the checks to run; none for all.

    Returns:
        A result a check. An editor's own exceptions become results.

    Raises:
        UnknownName: there is no such check.
    """
    for name in only:
        if name not in CHECKS:
            raise UnknownName("check", name, CHECKS)
    chosen = [check for check in CHECKS.values() if check.name in only or not only]
    with tempfile.TemporaryDirectory(prefix="editbench-conform-") as folder:
        subject = Subject(make, Path(folder))
        with subject.watch.trap(LatentJudge, PictureJudge):
            return _run(subject, chosen)


def _run(subject: Subject, chosen: Sequence[Check]) -> list[CheckResult]:
    # Every other check needs an editor, so this one always runs.
    first = _result(CHECKS["constructs"], subject)
    results = []
    for check in chosen:
        if check.name == "constructs":
            results.append(first)
        elif first.status == "failed":
            reason = "there is no editor to check; see `constructs`"
            results.append(_as_result(check, "skipped", reason))
        else:
            results.append(_result(check, subject))
    return results


def _result(check: Check, subject: Subject) -> CheckResult:
    try:
        return _as_result(check, "passed", check.run(subject))
    except Skipped as verdict:
        return _as_result(check, "skipped", str(verdict))
    except Verdict as verdict:
        place = f"See editbench.walk.editor.{check.member}: {check.meaning}."
        return _as_result(check, verdict.status, f"{verdict}\n{place}")
    except Exception as error:
        # Code of the editor that the check did not expect to fail.
        return _as_result(
            check,
            "failed",
            f"Found: {explain(error)}.\nRequired: {check.meaning}.\nFix: the code at that line.\n"
            f"See editbench.walk.editor.{check.member}.",
        )


def _as_result(check: Check, status: str, message: str) -> CheckResult:
    member = f"editbench.walk.editor.{check.member}"
    return CheckResult(check.name, status, message, check.meaning, member)
