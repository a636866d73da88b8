"""The suite: every check by its short name, with its meaning and the member of the contract it stands for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from editbench.base.errors import UnknownName
from editbench.conformance import checks_blind, checks_fit, checks_state, checks_walk
from editbench.conformance.subject import Subject
from editbench.conformance.verdicts import CheckResult, Skipped, Verdict, explain
from editbench.conformance.worlds import LatentJudge, PictureJudge
from editbench.walk.editor import Editor


@dataclass(frozen=True)
class Check:
    """run(subject) gives a remark when the check passes, and raises a Verdict otherwise."""

    name: str
    member: str
    meaning: str
    run: Callable[[Subject], str]


CHECKS = {
    check.name: check
    for check in (
        Check(
            "constructs",
            "Editor.__init__",
            "an Editor is made from defaults and says its space and unit",
            checks_fit.constructs,
        ),
        Check(
            "fit",
            "Editor.fit",
            "it learns from attributes of two classes and of many, and says what it read",
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
        Check(
            "state", "Editor.state", "a stored fit restores the editor exactly", checks_state.state
        ),
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
        Check("costs", "FitReport", "decodes and labels are counted", checks_fit.costs),
        Check(
            "steers",
            "Editor.step",
            "more starts move towards their target than by chance (no duty)",
            checks_walk.steers,
        ),
    )
}


def conform(make: Callable[[], Editor], only: Sequence[str] = ()) -> list[CheckResult]:
    """Run the suite on the editors that `make` gives, a new one at every call; `only`: names of checks.

    Raises UnknownName for a check that does not exist. An editor's own exceptions become results.
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
    first = _result(CHECKS["constructs"], subject)
    results = []
    for check in chosen:
        if check.name == "constructs":
            results.append(first)
        elif first.status == "failed":
            results.append(_said(check, "skipped", "there is no editor to check; see `constructs`"))
        else:
            results.append(_result(check, subject))
    return results


def _result(check: Check, subject: Subject) -> CheckResult:
    try:
        return _said(check, "passed", check.run(subject))
    except Skipped as verdict:
        return _said(check, "skipped", str(verdict))
    except Verdict as verdict:
        return _said(
            check,
            verdict.status,
            f"{verdict}\nSee editbench.walk.editor.{check.member}: {check.meaning}.",
        )
    except Exception as error:  # code of the editor that a check did not expect to fail
        return _said(
            check,
            "failed",
            f"Seen: {explain(error)}.\nOwed: {check.meaning}.\nFix: the code at that line.\n"
            f"See editbench.walk.editor.{check.member}.",
        )


def _said(check: Check, status: str, message: str) -> CheckResult:
    return CheckResult(
        check.name, status, message, check.meaning, f"editbench.walk.editor.{check.member}"
    )
