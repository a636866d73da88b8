"""Observations: what a job measures beside the judge's logits, for the metrics that need more.

A metric never imports a generator. One that needs pictures has an observation look at them, and
computes its numbers from what the observation kept; so a metric is recomputed without a generator.

An observation looks at one of two times:

- `DuringWalk`: at every decoded sample of the walk, which lives no longer than its batch. Its
  numbers are further columns of the trajectories.
- `AfterWalk`: once the walk has ended, at pictures that the fitted editor gives. Its
  arrays are kept in `observation-NAME.safetensors` of the record.

Neither changes a step of the walk, and neither is a cost of the method. Both are options of the
Hydra group `observation`, placed at `observation.NAME`.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from editbench.base.batches import Batches, halve_batch, is_out_of_memory
from editbench.base.errors import EditbenchError, Unsupported, WrongType
from editbench.walk.observed import Observed as Observed
from editbench.walk.observed import observation_file as observation_file
from editbench.walk.observed import read_observed as read_observed
from editbench.walk.trajectory import KEYS

# Metrics import this module to read what was kept. They must not load a generator for it.
if TYPE_CHECKING:
    from editbench.bank.bank import Bank
    from editbench.base.spaces import Codes
    from editbench.networks.generator import Generator
    from editbench.networks.roles import Networks
    from editbench.networks.scorer import Scorer
    from editbench.walk.editor import Editor, Walk


class Observation:
    """Base of all observations; derive from `DuringWalk` or `AfterWalk`."""

    citation: str = ""

    def prepare(self, networks: Networks, device: str) -> None:
        """Get ready for a job; called once before its fit.

        Args:
            networks: generator, teacher and judge of the job.
            device: the job's device.

        Raises:
            EditbenchError: these networks cannot be observed so; the job fails with this message.
        """


class DuringWalk(Observation, abc.ABC):
    """Measures every decoded sample of a walk."""

    def reference(self, decoded: Tensor) -> Tensor:
        """What to keep of a start's own sample, to compare its edits with.

        Args:
            decoded: (n, ...) samples of n starts.

        Returns:
            (n, e); it is kept for all starts at once, so e should be small.
        """
        return decoded.new_empty(len(decoded), 0)

    @abc.abstractmethod
    def measure(
        self, walk: Walk, codes: Codes, decoded: Tensor, reference: Tensor
    ) -> dict[str, Tensor]:
        """Measure a batch of decoded samples; a row may depend on its sample and its start alone.

        Args:
            walk: the n samples under way.
            codes: n codes that were decoded.
            decoded: (n, ...) what they gave.
            reference: (n, e) what `reference` gave for the samples' starts.

        Returns:
            Column name -> (n,) numbers.
        """


@dataclass(frozen=True)
class ObservationContext:
    """What an observation may look at, after the walk. The scorers and the bank's logits are cut to
    the evaluated attributes."""

    editor: Editor  # fitted
    generator: Generator
    teacher: Scorer
    judge: Scorer
    bank: Bank
    attribute: str  # that the job edits
    target: int | None  # class that every start is sent to; None where each has its own
    seed: int  # of the method's own randomness
    device: str
    batch: int  # samples decoded together
    cache: Path  # for what jobs share, such as statistics of real pictures; take a lock there
    # attribute -> the same method, fitted for that attribute
    editor_for: Callable[[str], Editor] | None = None


class AfterWalk(Observation, abc.ABC):
    """Looks at edited pictures once the walk has ended, and keeps small arrays.

    Any batch size must leave the same arrays, to float tolerance.
    """

    def check(self, context: ObservationContext) -> None:
        """Refuse what cannot be looked at whatever the editor learns; called once, before its fit.

        Args:
            context: as of `look`; the editor is bound to the generator and not fitted yet.

        Raises:
            EditbenchError: such as too few samples; the job fails with this message.
            Unsupported: there is nothing to look at. The reason is kept, and the job goes on
                without `look`.
        """

    @abc.abstractmethod
    def look(self, context: ObservationContext) -> Observed:
        """Decode, measure, and keep small arrays; statistics that add up in float64.

        Called where `check` refused nothing. Gradients are off.

        Raises:
            Unsupported: this editor, or these networks, have nothing to look at. The reason is
                kept, and the job goes on.
        """


class Unavailable(AfterWalk):
    """Stands for an observation that could not be built, and keeps the reason.

    Args:
        reason: stands in the record and in the metric's row in place of a number.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def look(self, context: ObservationContext) -> Observed:
        """Refuse, with the reason."""
        raise Unsupported(self.reason)


# -- during the walk
class WalkObserver:
    """Runs the observations of one walk, and counts what they cost."""

    def __init__(self, observations: Mapping[str, Observation] | None = None) -> None:
        """Take those observations that look during the walk; the others have their turn later.

        Args:
            observations: by name; None for none.
        """
        self.observations: dict[str, DuringWalk] = {}  # by name
        for name, observation in (observations or {}).items():
            if isinstance(observation, DuringWalk):
                self.observations[name] = observation
        self.seconds = 0.0  # that they took
        self.decoded = 0  # samples that were decoded for them alone
        self._starts = torch.empty(0, dtype=torch.int64)  # ascending, for a search by bisection
        self._references: dict[str, Tensor] = {}  # rows in the order of `_starts`
        self._parts: list[dict[str, Tensor]] = []  # columns of the step's batches so far

    def start(self, walk: Walk, codes: Codes, generator: Generator, batches: Batches) -> None:
        """Keep the references of all starts, and measure the starts as step 0.

        Args:
            walk: all starts, at step 0.
            codes: what to decode for them.
            generator: decodes them.
            batches: how many samples are decoded together.
        """
        if not self.observations:
            return  # without observations a walk decodes nothing for them
        began = time.perf_counter()
        order = walk.start.argsort()
        self._starts = walk.start[order]
        kept: dict[str, list[Tensor]] = {name: [] for name in self.observations}

        def keep(rows: slice) -> dict[str, Tensor]:
            decoded = generator.decode(codes[order[rows]])
            found = {}
            for name, observation in self.observations.items():
                found[name] = observation.reference(decoded)
            return found

        for found in batches.run(len(walk), keep):
            for name, reference in found.items():
                kept[name].append(reference)
        self._references = {name: torch.cat(parts) for name, parts in kept.items()}
        # A second pass in the walk's own order and batches: a batch of another composition may
        # round differently, and step 0 is to be measured exactly as every other step.

        def measure(rows: slice) -> None:
            self._measure(walk[rows], codes[rows], generator.decode(codes[rows]))

        batches.run(len(walk), measure)
        self.decoded += 2 * len(walk)
        self.seconds += time.perf_counter() - began

    def measure(self, walk: Walk, codes: Codes, decoded: Tensor) -> None:
        """Measure a batch of a step; batches come in the order of the walk.

        Args:
            walk: the samples of the batch.
            codes: what was decoded.
            decoded: what it gave.
        """
        # The engine decodes a few starts before `start` was called; these are not measured.
        if len(self._starts):
            began = time.perf_counter()
            self._measure(walk, codes, decoded)
            self.seconds += time.perf_counter() - began

    def take_columns(self) -> dict[str, Tensor]:
        """The columns of what was measured since the last call."""
        parts = self._parts
        self._parts = []
        if not parts:
            return {}
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _measure(self, walk: Walk, codes: Codes, decoded: Tensor) -> None:
        place = torch.searchsorted(self._starts, walk.start)
        columns: dict[str, Tensor] = {}
        for name, observation in self.observations.items():
            reference = self._references[name][place]
            found = observation.measure(walk, codes, decoded, reference)
            if not isinstance(found, Mapping):
                raise WrongType(
                    f"observation {name}: {type(observation).__name__}.measure must return a "
                    f"mapping of column names to tensors, not {type(found).__name__}"
                )
            taken = sorted(found.keys() & {*KEYS, *columns})
            # One of the two would be lost without a word.
            if taken:
                raise EditbenchError(
                    f"observation {name} measures the column '{taken[0]}', which already exists: "
                    "give it another name (observation.feature_similarity has a label)"
                )
            columns |= found
        self._parts.append(columns)


# -- after the walk
def check_observations(
    observations: Mapping[str, Observation], context: ObservationContext
) -> dict[str, str]:
    """Let every observation that looks after the walk refuse the job before its fit.

    Args:
        observations: all of the job, by name.
        context: what they may look at; the editor is not fitted yet.

    Returns:
        Name -> reason, of those that have nothing to look at.

    Raises:
        EditbenchError: one of them cannot work.
    """
    refused = {}
    for name, observation in observations.items():
        if not isinstance(observation, AfterWalk):
            continue
        try:
            with torch.no_grad():
                observation.check(context)
        except Unsupported as error:
            refused[name] = str(error)
    return refused


def observe_after_walk(
    folder: Path,
    observations: Mapping[str, Observation],
    context: ObservationContext,
    refused: Mapping[str, str],
) -> dict[str, dict]:
    """Run every observation that looks after the walk, and write its file.

    Args:
        folder: of the record.
        observations: all of the job, by name; those that look during the walk are left out.
        context: what they may look at.
        refused: what `check_observations` gave.

    Returns:
        Name -> seconds, generator calls and reason, for the provenance.
    """
    costs = {}
    for name, observation in observations.items():
        if not isinstance(observation, AfterWalk):
            continue
        began = time.perf_counter()
        before = context.generator.decoded
        if name in refused:
            # Nothing to look at is a result, with its reason in the record.
            found = Observed(reason=refused[name])
        else:
            found = _look(name, observation, context)
        found.save(observation_file(folder, name))
        costs[name] = {
            "seconds": time.perf_counter() - began,
            "generator_calls": context.generator.decoded - before,
            "reason": found.reason,
        }
    return costs


def _look(name: str, observation: AfterWalk, context: ObservationContext) -> Observed:
    """What an observation keeps; where memory ends, it looks again in smaller batches."""

    # The observation makes its own batches, of the size that the context names.
    def work(context: ObservationContext) -> Observed | None:
        before = context.generator.decoded
        try:
            with torch.no_grad():
                found = observation.look(context)
        except Unsupported as error:
            # Nothing to look at is a result; any other error is a defect, and fails the job.
            return Observed(reason=str(error))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or context.batch == 1:
                raise
            context.generator.decoded = before
            return None
        if not isinstance(found, Observed):
            raise WrongType(
                f"observation {name}: {type(observation).__name__}.look must return "
                "editbench.walk.observation.Observed(arrays, meta), not "
                f"{type(found).__name__}"
            )
        return found

    found = work(context)
    while found is None:
        context = replace(context, batch=halve_batch(context.batch, name))
        found = work(context)
    return found
