"""The editor under test: fitted once for each testbed, and stepped on copies of walks.

Crashes of its code are kept, and the checks report them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from editbench.base.errors import EditbenchError, UnknownName, Unsupported
from editbench.base.spaces import Codes
from editbench.conformance.compare import altered, close, snapshot, spelled_out
from editbench.conformance.testbeds import (
    FAMILIES,
    Testbed,
    clone_walk,
    make_testbed,
    other_bank,
    other_judge,
)
from editbench.conformance.verdicts import Skipped, describe_error
from editbench.conformance.watch import Tally, Watch
from editbench.walk.editor import Editor, FitData, FitReport, Walk
from editbench.walk.walker import kind_mismatch

# Attributes that are walked, of each kind of testbed.
MIXED_ATTRIBUTES = ("a", "kind", "angle")
BINARY_ATTRIBUTES = ("a", "b")
NO_REASON = "(no reason)"  # of an Unsupported without any


@dataclass
class Fit:
    """One fit of the editor. Keys of the mappings: '' for the fit, else the attribute tuned."""

    testbed: Testbed
    data: FitData
    editor: Editor
    error: Exception | None = None  # that ended the fit
    reports: dict[str, FitReport] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)  # costs that were counted
    altered: list[str] = field(default_factory=list)  # what it changed of what it was given
    tuned: dict[str, Editor] = field(default_factory=dict)


@dataclass
class Served:
    """An attribute of a testbed that the editor agreed to serve."""

    fit: Fit
    attribute: str
    editor: Editor

    @property
    def name(self) -> str:
        """The attribute, for messages."""
        return f"'{self.attribute}'"

    @property
    def classes(self) -> int:
        """How many classes the attribute has."""
        return len(self.fit.data.attributes[self.attribute].classes)

    def walk(self, source: int | None = None, target: int | None = None) -> Walk:
        """New starts of the attribute in the editor's space.

        Args:
            source: class that all starts have; None for any.
            target: class that all are sent to; None for the next class, see `Testbed.walk`.
        """
        return self.fit.testbed.walk(
            self.editor.space, self.attribute, source=source, target=target
        )


class Subject:
    """An editor class with the testbeds that it is tried on."""

    def __init__(self, make: Callable[[], Editor], folder: Path) -> None:
        """Prepare; nothing is built or fitted yet.

        Args:
            make: gives a new, unfitted editor at every call.
            folder: scratch space for banks.
        """
        self.factory = make
        self.folder = folder
        self.watch = Watch()
        self.crashed: dict[str, str] = {}  # where a step went wrong -> how
        self.refused: dict[str, str] = {}  # attribute -> why it is not served
        self._testbeds: dict[tuple[str, str], Testbed] = {}  # by family and kind
        self._fits: dict[tuple[str, str], Fit] = {}  # by family and kind

    # -- running the editor's code
    def make(self) -> Editor:
        """A new editor."""
        with self.watch.running(0):
            return self.factory()

    def testbed(self, family: str, kind: str) -> Testbed:
        """A testbed, built when it is first needed.

        Args:
            family: one of FAMILIES.
            kind: one of KINDS.
        """
        if (family, kind) not in self._testbeds:
            self._testbeds[family, kind] = make_testbed(family, kind, self.folder)
        return self._testbeds[family, kind]

    def fit(self, testbed: Testbed, data: FitData | None = None, seed: int = 0) -> Fit:
        """Fit a new editor as a job does; an exception is kept, not raised.

        Args:
            testbed: to fit on.
            data: in place of the testbed's.
            seed: of the global random state.
        """
        # A job has bank and judge in frames like this one. An editor that looks for them on the
        # stack finds them here, which the trap notices.
        bank = testbed.bank
        judge = testbed.judge
        assert bank is not None and judge is not None
        data = data or testbed.data()
        fit = Fit(testbed, data, self.make())
        self._spend(fit, "", lambda: fit.editor.fit(data), seed, first=True)
        return fit

    def tune(self, fit: Fit, attribute: str) -> Editor:
        """The editor for one attribute: the fitted one, or a copy of it that was tuned.

        Args:
            fit: without an error; reports, costs and changes of the tuning are added to it.
            attribute: of its testbed.

        Returns:
            The same object at every call for an attribute.

        Raises:
            Exception: whatever the tuning raised; only the first call for an attribute raises it.
        """
        if type(fit.editor).tune is Editor.tune:
            return fit.editor
        if attribute not in fit.tuned:
            data = fit.data
            # The copy shares the networks: they are large, and an editor may not change them.
            shared: dict[int, object] = {id(x): x for x in (data, data.generator, data.teacher)}
            editor = copy.deepcopy(fit.editor, shared)
            fit.tuned[attribute] = editor
            self._spend(fit, attribute, lambda: editor.tune(data, attribute), 0)
            if fit.error is not None:
                # The fit itself was sound, and serves the other attributes.
                error = fit.error
                fit.error = None
                raise error
        return fit.tuned[attribute]

    def _spend(
        self, fit: Fit, name: str, work: Callable[[], FitReport], seed: int, first: bool = False
    ) -> None:
        """Run a fit or a tuning, and keep its report, its costs, its changes and its error."""
        data = fit.data
        # Everything is measured around the call: before, while it runs, and after.
        before = snapshot(data)
        self.watch.tally = Tally()
        counted = data.generator.decoded
        try:
            # Within the block: what `bind` raises is an error of the fit too.
            if first:
                fit.editor.bind(data.generator, data.teacher)
            with self.watch.count(fit.testbed.last, data.teacher), self.watch.running(seed):
                fit.reports[name] = work()
        except Exception as error:
            # Whatever it is, the checks report it.
            fit.error = error
        self.watch.tally.counted = data.generator.decoded - counted
        fit.tallies[name] = self.watch.tally
        self.watch.tally = Tally()
        where = "tune" if name else "fit"
        fit.altered += [f"{what} (in {where})" for what in altered(data, before)]

    def answer(self, editor: Editor, testbed: Testbed, attribute: str) -> str:
        """What `check` answers: '' where the editor will serve, else the reason.

        Args:
            editor: before its fit or after it, as a job asks twice.
            testbed: whose generator and attributes it is asked about.
            attribute: that would be edited.

        Raises:
            Exception: whatever else `check` raises.
        """
        attributes = testbed.teacher.attributes
        try:
            with self.watch.running(0):
                editor.check(testbed.generator, attributes, attribute)
        except (Unsupported, UnknownName) as error:
            # Attributes that an option names may be those of another world.
            return str(error) or NO_REASON
        return ""

    def step(self, editor: Editor, walk: Walk, seed: int = 0) -> Tensor:
        """One step of a copy of the walk, without gradients as in the engine.

        Args:
            editor: fitted.
            walk: n samples.
            seed: of the global random state.
        """
        with torch.no_grad(), self.watch.running(seed):
            return editor.step(clone_walk(walk))

    def path(self, editor: Editor, walk: Walk, steps: int, seed: int = 0) -> Walk:
        """A copy of the walk, some steps on.

        Args:
            editor: fitted.
            walk: n samples.
            steps: to make.
            seed: of the global random state before every step.

        Raises:
            EditbenchError: a step gives something other than codes like those of the walk.
        """
        here = clone_walk(walk)
        for _ in range(steps):
            # Not by a Walker: it refuses an editor that works in place, which `pure` reports.
            moved = self.step(editor, here, seed)
            problem = kind_mismatch(moved, here.codes)
            if problem:
                raise EditbenchError(f"{type(editor).__name__}.step returned {problem}")
            here = replace(here, codes=moved, steps=here.steps + 1)
        return here

    def outcome(self, editor: Editor, walk: Walk, steps: int = 1, seed: int = 0) -> Tensor:
        """All that is decoded some steps on, one row per sample.

        Args:
            editor: fitted.
            walk: n samples; a copy of it is walked.
            steps: to make; 0 for what is decoded at the start.
            seed: of the global random state before every step.

        Returns:
            (n, ...), see `spelled_out`.
        """
        return spelled_out(self.codes(editor, self.path(editor, walk, steps, seed)))

    def codes(self, editor: Editor, walk: Walk) -> Codes:
        """What is decoded for a copy of the walk.

        Args:
            editor: fitted.
            walk: n samples.

        Returns:
            n codes, with their shift of the weights if there is one.
        """
        with torch.no_grad(), self.watch.running(0):
            return editor.codes(clone_walk(walk))

    def need_repeatable(self, editor: Editor, walk: Walk, steps: int) -> None:
        """Make sure that differences between two walks come from what a check changed.

        Args:
            editor: fitted.
            walk: n samples; copies of it are walked.
            steps: of both walks.

        Raises:
            Skipped: the same walk twice differs, because `step` remembers something. `pure` fails
                then, and a difference after a change would say nothing about that change.
        """
        first = self.outcome(editor, walk, steps)
        second = self.outcome(editor, walk, steps)
        # What is decoded at the start gives the length of the move, by which rounding is judged.
        if not close(first, second, self.outcome(editor, walk, 0)).all():
            raise Skipped("the same walk twice differs; see `pure`")

    # -- what the checks need
    def fitted(self, family: str, kind: str) -> Fit:
        """The fit on a testbed, made when it is first needed.

        Args:
            family: one of FAMILIES.
            kind: one of KINDS.

        Returns:
            The same object at every call. Its `error` may be set.
        """
        if (family, kind) not in self._fits:
            self._fits[family, kind] = self.fit(self.testbed(family, kind))
        return self._fits[family, kind]

    @cached_property
    def again(self) -> Fit:
        """A second fit of the first served attribute's data, with all that may not matter changed.

        The global random state, the judge, its logits and the test split are others. Where it is
        the same as the first fit, none of them matters; where it is not, a check fits once more
        with its own cause alone changed.
        """
        testbed = self.need_served()[0].fit.testbed
        bank = other_bank(testbed.bank, self.folder / "other")
        judge = other_judge(testbed)
        elsewhere = replace(testbed, judge=judge, bank=bank)
        return self.fit(elsewhere, seed=1)

    @cached_property
    def family(self) -> str:
        """The family of testbeds that suits the editor.

        It is the first where an attribute is served, or else where a fit succeeds, or else the
        first. Testbeds with attributes of many classes are tried before those without.
        """
        second = ""  # where a fit succeeds, but nothing is served
        for kind in ("mixed", "binary"):
            for family in FAMILIES:
                fit = self.fitted(family, kind)
                if fit.error is not None:
                    continue
                if any(self._serves(fit, name) for name in fit.data.attributes.names):
                    return family
                second = second or family
        return second or FAMILIES[0]

    def _serves(self, fit: Fit, attribute: str) -> bool:
        try:
            return not self.answer(fit.editor, fit.testbed, attribute)
        except Exception:
            # A crash of `check` is for the checks to report, so the testbed counts as suitable.
            return True

    @cached_property
    def served(self) -> list[Served]:
        """Attributes that the editor serves and can step; others are in `refused` and `crashed`."""
        out: list[Served] = []
        for kind, names in (("mixed", MIXED_ATTRIBUTES), ("binary", BINARY_ATTRIBUTES)):
            fit = self.fitted(self.family, kind)
            if fit.error is not None:
                continue
            for name in names:
                served = self._try_attribute(fit, name)
                if served is not None:
                    out.append(served)
        return out

    def _try_attribute(self, fit: Fit, attribute: str) -> Served | None:
        """Tune, check and step once; None where one of them refuses or goes wrong."""
        where = f"'{attribute}' of the {fit.testbed.kind} testbed"
        try:
            editor = self.tune(fit, attribute)
            reason = self.answer(editor, fit.testbed, attribute)
            if reason:
                self.refused[attribute] = reason
                return None
            # One step, so that no later check stumbles over a step that cannot be made at all.
            served = Served(fit, attribute, editor)
            walk = served.walk()
            after = self.step(editor, walk)
        except Unsupported as error:
            self.refused[attribute] = str(error) or NO_REASON
            return None
        except Exception as error:
            self.crashed[where] = describe_error(error, fit.editor)
            return None
        problem = kind_mismatch(after, walk.codes)
        if problem:
            self.crashed[where] = f"step returned {problem}"
            return None
        return served

    def need_served(self, binary: bool | None = None) -> list[Served]:
        """The served attributes.

        Args:
            binary: True for those of two classes, False for those of many, None for all.

        Raises:
            Skipped: there are none.
        """
        chosen = []
        for served in self.served:
            if binary is None or (served.classes == 2) == binary:
                chosen.append(served)
        if chosen:
            return chosen
        # One cause, one failed check: the others point to it.
        if self.crashed:
            raise Skipped("no step could be made; see `moves`")
        errors = [fit.error for fit in self._fits.values() if fit.error is not None]
        if errors and not self.refused:
            raise Skipped("nothing could be fitted; see `fit`")
        named = [f"{name}: {reason}" for name, reason in self.refused.items()]
        raise Skipped("serves no such attribute here" + (f" ({named[0]})" if named else ""))
