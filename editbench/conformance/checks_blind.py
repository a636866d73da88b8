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
from editbench.conformance.compare import spelled_out
from editbench.conformance.subject import Fit, Served, Subject
from editbench.conformance.verdicts import Failed, Skipped, explain
from editbench.conformance.worlds import SPEC, World, other_bank, other_judge
from editbench.walk.editor import Editor, Walk
from editbench.walk.engine import EngineSpec, walk_starts

STARTS, STEPS = 12, 3
OWED = "an edit learned from data.fit, data.tune and data.teacher alone: the judge and the test split measure it"
FIX = (
    "use FitData (data.fit, data.tune, data.teacher, data.score) in `fit` and `tune`, and the Walk in `step`; look "
    "for nothing on the stack, in gc or on disk"
)


class Recorder:
    """Stands before an editor in the engine and keeps what every step gives; only the editor's code is watched."""

    def __init__(self, subject: Subject, editor: Editor) -> None:
        self.subject, self.editor, self.space = subject, editor, editor.space
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
    served = subject.need_served()[0]
    world = served.fit.world
    bank, judge = other_bank(world.bank, subject.folder / "other"), other_judge(world)
    elsewhere = World(world.family, world.kind, world.generator, world.teacher, judge, bank)
    again = subject.fit(elsewhere)
    if again.error is not None:
        raise Failed(
            f"with another test split and judge, fit raised {explain(again.error, again.editor)}",
            OWED,
            FIX,
        )
    walks = [_job(subject, fit, served, world) for fit in (served.fit, again)]
    if subject.watch.touched:
        names = list(dict.fromkeys(subject.watch.touched))
        seen = ", ".join([name for name in names if "._" not in name] or names)
        raise Failed(f"the editor's code used {seen}", OWED, FIX)
    difference = _difference(subject, served, again, walks)
    if difference:
        control = subject.fit(world)  # the same data once more
        if control.error is not None or _difference(
            subject, served, control, [walks[0], _job(subject, control, served, world)]
        ):
            raise Skipped("two fits of the same data differ already; see `determinism`")
        raise Failed(f"with another test split and judge {difference}", OWED, FIX)
    return "same fit and steps under another test split and judge; neither was touched"


def _difference(subject: Subject, served: Served, other: Fit, walks: list[list[Tensor]]) -> str:
    """How a fit and its walk differ from the served one; '' where they are the same."""
    states = []
    for fit in (served.fit, other):
        editor = subject.tune(fit, served.attribute)
        with subject.watch.running(0):
            states.append(editor.state())
    differing = [
        name
        for name in states[0]
        if name not in states[1]
        or not torch.equal(states[0][name].nan_to_num(), states[1][name].nan_to_num())
    ]
    if differing:
        return f"the fitted state differs: {', '.join(differing[:4])}"
    same = len(walks[0]) == len(walks[1]) and all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(*walks)
    )
    return "" if same else "the steps differ"


def _job(subject: Subject, fit: Fit, served: Served, world: World) -> list[Tensor]:
    """Codes of the steps that an editor makes in the engine, as in a job. The starts are tune samples, whose codes are
    the same in every bank; that they are the judge's is what differs."""
    recorder = Recorder(subject, subject.tune(fit, served.attribute))
    generator, judge, bank = fit.world.generator, fit.world.judge, fit.world.bank
    first = SPEC.split("tune")[0]
    index = np.arange(first, first + STARTS)
    walk = world.walk(recorder.space, served.attribute, STARTS)
    starts = Starts(index, walk.source.numpy(), walk.target.numpy(), 0.0)
    codes = _latents(bank, recorder.space, index)
    logits = judge(
        generator.decode(Codes(Space.Z if recorder.space == Space.Z else Space.W, codes))
    )
    with contextlib.suppress(
        Exception
    ):  # the other checks speak of it; here it matters what was touched until then
        walk_starts(
            cast(Editor, recorder),
            generator,
            judge,
            served.attribute,
            starts,
            codes,
            logits,
            bank.sigma["judge"],
            EngineSpec(STEPS, STEPS, 64, 1),
        )
    return recorder.steps


def _latents(bank: Bank, space: Space, index: np.ndarray) -> Tensor:
    return torch.from_numpy(bank.array("z" if space == Space.Z else "w").take(index))
