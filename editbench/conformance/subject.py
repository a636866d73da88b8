"""The editor under test: fitted once a world, stepped on walks in memory of its own, its crashes kept for reading."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from editbench.bank.bank import Bank
from editbench.base.errors import Unsupported
from editbench.base.spaces import Codes
from editbench.conformance.compare import altered, snapshot, spelled_out
from editbench.conformance.verdicts import Skipped, explain
from editbench.conformance.watch import Tally, Watch
from editbench.conformance.worlds import FAMILIES, World, clone_walk, make_world
from editbench.walk.editor import Editor, FitData, FitReport, Walk

MIXED_ATTRIBUTES, BINARY_ATTRIBUTES = ("a", "kind", "angle"), ("a", "b")  # those that are walked


@dataclass
class Fit:
    """One fit: the editor, its reports and costs ('' for the fit, else the attribute tuned), what it altered, or the
    error that ended it."""

    world: World
    data: FitData
    editor: Editor
    error: Exception | None = None
    reports: dict[str, FitReport] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)
    altered: list[str] = field(default_factory=list)
    tuned: dict[str, Editor] = field(default_factory=dict)


@dataclass
class Served:
    """An attribute of a world that an editor agreed to serve."""

    fit: Fit
    attribute: str
    editor: Editor

    @property
    def name(self) -> str:
        return f"'{self.attribute}'"

    @property
    def classes(self) -> int:
        return len(self.fit.data.attributes[self.attribute].classes)

    def walk(self, source: int | None = None, target: int | None = None) -> Walk:
        return self.fit.world.walk(self.editor.space, self.attribute, source=source, target=target)


class Subject:
    """An editor class with the worlds it is tried on.

    Args:
        make: gives a new, unfitted editor at every call.
        folder: scratch space for banks.
    """

    def __init__(self, make: Callable[[], Editor], folder: Path) -> None:
        self.factory, self.folder, self.watch = make, folder, Watch()
        self.crashed: dict[str, str] = {}  # where a step went wrong -> how
        self.refused: dict[str, str] = {}  # attribute -> why it is not served
        self._worlds: dict[tuple[str, str], World] = {}
        self._fits: dict[tuple[str, str], Fit] = {}

    # -- running the editor's code ----------------------------------------------------------------------------------
    def make(self) -> Editor:
        with self.watch.running(0):
            return self.factory()

    def world(self, family: str, kind: str) -> World:
        if (family, kind) not in self._worlds:
            self._worlds[family, kind] = make_world(family, kind, self.folder)
        return self._worlds[family, kind]

    def fit(
        self, world: World, data: FitData | None = None, bank: Bank | None = None, seed: int = 0
    ) -> Fit:
        """Fit a new editor as a job does; an exception is kept, not raised. `seed` is that of the global state."""
        bank, judge = (
            bank or world.bank,
            world.judge,
        )  # a job has them in these frames; an editor may not look
        assert judge is not None
        data = data or world.data(bank)
        fit = Fit(world, data, self.make())
        self._spend(fit, "", lambda: fit.editor.fit(data), seed, first=True)
        return fit

    def tune(self, fit: Fit, attribute: str) -> Editor:
        """The editor for one attribute: the fitted one, or a copy of it that was tuned."""
        if type(fit.editor).tune is Editor.tune:
            return fit.editor
        if attribute not in fit.tuned:
            data = fit.data
            shared: dict[int, object] = {id(x): x for x in (data, data.generator, data.teacher)}
            editor = fit.tuned[attribute] = copy.deepcopy(fit.editor, shared)
            self._spend(fit, attribute, lambda: editor.tune(data, attribute), 0)
            if fit.error is not None:
                error, fit.error = fit.error, None
                raise error
        return fit.tuned[attribute]

    def _spend(
        self, fit: Fit, name: str, work: Callable[[], FitReport], seed: int, first: bool = False
    ) -> None:
        data, editor = fit.data, fit.editor
        before, self.watch.tally = snapshot(data), Tally()
        counted = data.generator.decoded
        try:
            if first:
                editor.num_ws = data.generator.num_ws
            with self.watch.count(fit.world.last, data.teacher), self.watch.running(seed):
                fit.reports[name] = work()
        except Exception as error:  # whatever it is, the checks speak of it
            fit.error = error
        self.watch.tally.counted = data.generator.decoded - counted
        fit.tallies[name], self.watch.tally = self.watch.tally, Tally()
        fit.altered += [
            f"{what} (in {'tune' if name else 'fit'})" for what in altered(data, before)
        ]

    def answer(self, editor: Editor, world: World, attribute: str) -> str:
        """What `check` says: '' where it will serve, else the reason. Raises whatever else it raises."""
        attributes = world.teacher.attributes
        try:
            with self.watch.running(0):
                editor.check(world.generator, attributes, attribute)
        except Unsupported as error:
            return str(error) or "(no reason)"
        return ""

    def step(self, editor: Editor, walk: Walk, seed: int = 0) -> Tensor:
        """One step of a copy of the walk, without gradients as in the engine."""
        with torch.no_grad(), self.watch.running(seed):
            return editor.step(clone_walk(walk))

    def path(self, editor: Editor, walk: Walk, steps: int, seed: int = 0) -> Walk:
        """The walk some steps on."""
        walk = clone_walk(walk)
        for _ in range(steps):
            walk.codes, walk.steps = self.step(editor, walk, seed), walk.steps + 1
        return walk

    def outcome(self, editor: Editor, walk: Walk, steps: int = 1, seed: int = 0) -> Tensor:
        """All that is decoded some steps on, a row a sample: (n, ...)."""
        return spelled_out(self.codes(editor, self.path(editor, walk, steps, seed)))

    def codes(self, editor: Editor, walk: Walk) -> Codes:
        with torch.no_grad(), self.watch.running(0):
            return editor.codes(clone_walk(walk))

    # -- what the checks ask for ------------------------------------------------------------------------------------
    def fitted(self, family: str, kind: str) -> Fit:
        if (family, kind) not in self._fits:
            self._fits[family, kind] = self.fit(self.world(family, kind))
        return self._fits[family, kind]

    @cached_property
    def family(self) -> str:
        """The first family of worlds where an attribute is served, or else where a fit succeeds, or else the first.
        Worlds with attributes of many classes are tried before those without."""
        second = ""
        for kind in ("mixed", "binary"):
            for family in FAMILIES:
                fit = self.fitted(family, kind)
                if fit.error is None:
                    if any(self._serves(fit, name) for name in fit.data.attributes.names):
                        return family
                    second = second or family
        return second or FAMILIES[0]

    def _serves(self, fit: Fit, attribute: str) -> bool:
        try:
            return not self.answer(fit.editor, fit.world, attribute)
        except Exception:  # a crash of `check` is for the checks to report
            return True

    @cached_property
    def served(self) -> list[Served]:
        """Attributes that the editor serves and can step; what went wrong with others is in `refused`, `crashed`."""
        out: list[Served] = []
        for kind, names in (("mixed", MIXED_ATTRIBUTES), ("binary", BINARY_ATTRIBUTES)):
            fit = self.fitted(self.family, kind)
            if fit.error is None:
                out += [s for name in names if (s := self._try(fit, name)) is not None]
        return out

    def _try(self, fit: Fit, attribute: str) -> Served | None:
        where = f"'{attribute}' of the {fit.world.kind} world"
        try:
            editor = self.tune(fit, attribute)
            reason = self.answer(editor, fit.world, attribute)
            if reason:
                self.refused[attribute] = reason
                return None
            served = Served(fit, attribute, editor)
            walk = served.walk()
            after = self.step(editor, walk)
        except Unsupported as error:
            self.refused[attribute] = str(error) or "(no reason)"
            return None
        except Exception as error:
            self.crashed[where] = explain(error, fit.editor)
            return None
        if not isinstance(after, Tensor):
            self.crashed[where] = f"step gave {type(after).__name__}, not a tensor"
        elif (after.shape, after.dtype, after.device) != (
            walk.codes.shape,
            walk.codes.dtype,
            walk.codes.device,
        ):
            self.crashed[where] = (
                f"step gave {tuple(after.shape)} {after.dtype} on {after.device} for codes "
                f"{tuple(walk.codes.shape)} {walk.codes.dtype} on {walk.codes.device}"
            )
        else:
            return served
        return None

    def need_served(self, binary: bool | None = None) -> list[Served]:
        """The served attributes, those of two or of many classes if asked for; Skipped where there are none."""
        chosen = [s for s in self.served if binary is None or (s.classes == 2) == binary]
        if chosen:
            return chosen
        if self.crashed:
            raise Skipped("no step could be made; see `moves`")
        errors = [fit.error for fit in self._fits.values() if fit.error is not None]
        if errors and not self.refused:
            raise Skipped("nothing could be fitted; see `fit`")
        named = [f"{name}: {reason}" for name, reason in self.refused.items()]
        raise Skipped("serves no such attribute here" + (f" ({named[0]})" if named else ""))
