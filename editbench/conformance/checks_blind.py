"""The check that an editor learns from nothing but the fit and tune splits and the teacher."""

from __future__ import annotations

import contextlib
from typing import cast

import numpy as np
import torch
from torch import Tensor

from editbench.bank.bank import Bank
from editbench.bank.starts import Starts
from editbench.base.spaces import Codes, Space
from editbench.conformance.checks_state import need_storable
from editbench.conformance.compare import spelled_out
from editbench.conformance.subject import Fit, Served, Subject
from editbench.conformance.testbeds import SPEC, Testbed
from editbench.conformance.verdicts import Failed, Skipped, describe_error
from editbench.walk.editor import Editor, Walk
from editbench.walk.engine import WalkInputs, walk_starts
from editbench.walk.spec import EngineSpec

STARTS = 12
STEPS = 3
REQUIRED = (
    "an edit learned from data.fit, data.tune and data.teacher alone: the judge and the test split "
    "measure it"
)
FIX = (
    "use FitData (data.fit, data.tune, data.teacher, data.score) in `fit` and `tune`, and the Walk, "
    "`need_generator` and `need_teacher` in `step`; do not search the stack, gc or the disk"
)


class Recorder:
    """Stands before an editor in the engine, and keeps what every step gives.

    Only the editor's own code is watched: the engine may use the judge.
    """

    def __init__(self, subject: Subject, editor: Editor) -> None:
        self.subject = subject
        self.editor = editor
        self.space = editor.space
        self.steps: list[Tensor] = []

    def step(self, walk: Walk) -> Tensor:
        with self.subject.watch.running(0):
            moved = self.editor.step(walk)
        self.steps.append(moved.clone())
        return moved

    def codes(self, walk: Walk) -> Codes:
        with self.subject.watch.running(0):
            codes = self.editor.codes(walk)
        self.steps.append(spelled_out(codes))
        return codes


def blind(subject: Subject) -> str:
    """Fit and walk twice, under two judges and test splits; nothing may differ or be touched."""
    served = subject.need_served()[0]
    need_storable(subject, served.editor)
    testbed = served.fit.testbed
    again = subject.again
    difference = ""
    if again.error is not None or _differs(subject, served, again):
        # The global random state may be why, which is another check's matter.
        again = subject.fit(again.testbed)
        if again.error is not None:
            how = describe_error(again.error, again.editor)
            raise Failed(f"with another test split and judge, fit raised {how}", REQUIRED, FIX)
        difference = _differs(subject, served, again)
    # Two ways to find out: the trap sees uses of the objects themselves, the comparison also what
    # was read past them, from disk for example.
    if subject.watch.touched:
        names = list(dict.fromkeys(subject.watch.touched))
        public = [name for name in names if "._" not in name]
        raise Failed(f"the editor's code used {', '.join(public or names)}", REQUIRED, FIX)
    if difference:
        # An editor that is not deterministic differs from itself; that is another check's matter.
        control = subject.fit(testbed)
        if control.error is not None:
            raise Skipped("two fits of the same data differ already; see `determinism`")
        if _differs(subject, served, control):
            raise Skipped("two fits of the same data differ already; see `determinism`")
        raise Failed(f"with another test split and judge {difference}", REQUIRED, FIX)
    return "same fit and steps under another test split and judge; neither was touched"


def _differs(subject: Subject, served: Served, other: Fit) -> str:
    """How a fit and its walk differ from the served one; '' where they are the same."""
    walks = []
    states = []
    for fit in (served.fit, other):
        walks.append(_walk_as_a_job(subject, fit, served, served.fit.testbed))
        editor = subject.tune(fit, served.attribute)
        with subject.watch.running(0):
            states.append(editor.state())
    here, there = states
    differing = []
    for name in here:
        if name not in there or not _equal(here[name], there[name]):
            differing.append(name)
    if differing:
        return f"the fitted state differs: {', '.join(differing[:4])}"
    if len(walks[0]) != len(walks[1]):
        return "the steps differ"
    same = all(_equal(a, b) for a, b in zip(*walks))
    return "" if same else "the steps differ"


def _equal(a: Tensor, b: Tensor) -> bool:
    # NaN is unequal to itself; two fits that give NaN alike are alike.
    return torch.equal(a.nan_to_num(), b.nan_to_num())


def _walk_as_a_job(subject: Subject, fit: Fit, served: Served, testbed: Testbed) -> list[Tensor]:
    """Codes of the steps that an editor makes in the engine, as in a job.

    The starts are tune samples, whose codes are the same in every bank; what differs is the judge
    and its logits.

    Args:
        subject: watches.
        fit: whose editor walks, with the judge and bank of its testbed.
        served: the attribute.
        testbed: gives source and target classes, the same for both fits.
    """
    recorder = Recorder(subject, subject.tune(fit, served.attribute))
    generator = fit.testbed.generator
    judge = fit.testbed.judge
    bank = fit.testbed.bank
    first = SPEC.split("tune")[0]
    index = np.arange(first, first + STARTS)
    # Source and target are those of new starts: in the check no class has to be right.
    walk = testbed.walk(recorder.space, served.attribute, STARTS)
    starts = Starts(index, walk.source.numpy(), walk.target.numpy(), 0.0)
    codes = _latents(bank, recorder.space, index)
    own = Space.Z if recorder.space == Space.Z else Space.W
    logits = judge(generator.decode(Codes(own, codes)))
    inputs = WalkInputs(cast(Editor, recorder), generator, served.attribute, starts, codes, logits)
    # Other checks report an editor that breaks here; what matters is what it touched before.
    with contextlib.suppress(Exception):
        walk_starts(inputs, judge, bank.sigma["judge"], EngineSpec(STEPS, STEPS, 64, 1))
    return recorder.steps


def _latents(bank: Bank, space: Space, index: np.ndarray) -> Tensor:
    return torch.from_numpy(bank.array("z" if space == Space.Z else "w").take(index))
