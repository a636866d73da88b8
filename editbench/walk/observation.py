"""Observations: measurements other than the judge's logits, for the metrics that need them.

A metric never imports a generator. If it needs images, an observation measures them and keeps the
results, from which the metric computes its numbers. Metrics can therefore be recomputed without a
generator.

There are two kinds of observations:

- `DuringWalk` measures every decoded sample of the walk, before its batch is dropped. Its numbers
  become further columns of the trajectories.
- `AfterWalk` measures images that the fitted editor makes after the walk has ended. Its arrays are
  kept in `observation-NAME.safetensors` of the record.

Neither kind influences the walk, and neither counts as a cost of the method. Both are options of
the Hydra group `observation`, placed at `observation.NAME`.
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

# Metrics import this module to read what was kept, which must not import a generator.
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
        """Prepare for a job; called once before its fit.

        Args:
            networks: generator, teacher and judge of the job.
            device: the job's device.

        Raises:
            EditbenchError: the observation does not work with these networks; the job fails with
                this message.
        """


class DuringWalk(Observation, abc.ABC):
    """Measures every decoded sample of a walk."""

    def reference(self, decoded: Tensor) -> Tensor:
        """What to keep of the unedited starts, for comparison with their edits.

        Args:
            decoded: (n, ...) decoded samples of n starts.

        Returns:
            (n, e); it is held in memory for all starts at once, so e should be small.
        """
        return decoded.new_empty(len(decoded), 0)

    @abc.abstractmethod
    def measure(
        self, walk: Walk, codes: Codes, decoded: Tensor, reference: Tensor
    ) -> dict[str, Tensor]:
        """Measure a batch of decoded samples.

        Each row must depend only on its own sample and on that sample's start.

        Args:
            walk: the n samples in their current state.
            codes: the n codes that were decoded.
            decoded: (n, ...) the decoded samples.
            reference: (n, e) what `reference` returned for the samples' starts.

        Returns:
            Column name -> (n,) numbers.
        """


@dataclass(frozen=True)
class ObservationContext:
    """What an observation may use after the walk.

    The scorers and the bank's logits contain only the evaluated attributes.
    """

    editor: Editor  # fitted
    generator: Generator
    teacher: Scorer
    judge: Scorer
    bank: Bank
    attribute: str  # the target attribute of the job
    target: int | None  # target class of every start; None if each start has its own
    seed: int  # of the method's own random draws
    device: str
    batch: int  # samples decoded together
    # Folder for what jobs share, such as statistics of real images; take a lock before writing.
    cache: Path
    # attribute -> the same method, fitted for that attribute
    editor_for: Callable[[str], Editor] | None = None


class AfterWalk(Observation, abc.ABC):
    """Measures edited images after the walk has ended, and keeps small arrays.

    The arrays must not depend on the batch size, up to float tolerance.
    """

    def check(self, context: ObservationContext) -> None:
        """Reject a job that cannot be observed whatever the editor learns; called before the fit.

        Args:
            context: as for `look`; the editor is bound to the generator but not fitted yet.

        Raises:
            EditbenchError: for example too few samples; the job fails with this message.
            Unsupported: there is nothing to observe. The reason is recorded, and the job continues
                without calling `look`.
        """

    @abc.abstractmethod
    def look(self, context: ObservationContext) -> Observed:
        """Decode, measure, and return small arrays; sums over samples are kept in float64.

        Called only if `check` raised nothing. Gradients are off.

        Raises:
            Unsupported: there is nothing to observe with this editor or these networks. The reason
                is recorded, and the job continues.
        """


class Unavailable(AfterWalk):
    """Placeholder for an observation that could not be built; it keeps the reason.

    Args:
        reason: shown in the record and in the metric's row in place of a number.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def look(self, context: ObservationContext) -> Observed:
        """Raise Unsupported with the reason."""
        raise Unsupported(self.reason)


# -- during the walk
class WalkObserver:
    """Runs the `DuringWalk` observations of one walk and counts their cost."""

    def __init__(self, observations: Mapping[str, Observation] | None = None) -> None:
        """Select the observations that measure during the walk and ignore the others.

        Args:
            observations: name -> observation of any kind; None for none.
        """
        self.observations: dict[str, DuringWalk] = {}  # by name
        for name, observation in (observations or {}).items():
            if isinstance(observation, DuringWalk):
                self.observations[name] = observation
        self.seconds = 0.0  # time that they took
        self.decoded = 0  # samples that were decoded only for them
        self._starts = torch.empty(0, dtype=torch.int64)  # ascending, for searchsorted
        self._references: dict[str, Tensor] = {}  # rows in the order of `_starts`
        self._parts: list[dict[str, Tensor]] = []  # columns of the step's batches so far

    def start(self, walk: Walk, codes: Codes, generator: Generator, batches: Batches) -> None:
        """Keep the references of all starts, and measure the starts as step 0.

        Args:
            walk: all starts, at step 0.
            codes: the codes to decode for them.
            generator: decodes the codes.
            batches: how many samples are decoded together.
        """
        if not self.observations:
            return  # no need to decode the starts
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
        # A second pass in the walk's own order and batches: a batch with other samples may round
        # differently, and step 0 must be measured exactly like every other step.

        def measure(rows: slice) -> None:
            self._measure(walk[rows], codes[rows], generator.decode(codes[rows]))

        batches.run(len(walk), measure)
        self.decoded += 2 * len(walk)
        self.seconds += time.perf_counter() - began

    def measure(self, walk: Walk, codes: Codes, decoded: Tensor) -> None:
        """Measure a batch of a step; batches come in the order of the walk.

        Args:
            walk: the samples of the batch.
            codes: the codes that were decoded.
            decoded: the decoded samples.
        """
        # The engine decodes a few starts before it calls `start`; these are not measured.
        if len(self._starts):
            began = time.perf_counter()
            self._measure(walk, codes, decoded)
            self.seconds += time.perf_counter() - began

    def take_columns(self) -> dict[str, Tensor]:
        """Return the columns measured since the last call."""
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
            # Otherwise one column would silently replace the other.
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
    """Call `check` of every `AfterWalk` observation, before the fit.

    Args:
        observations: name -> observation, all of the job.
        context: what they may use; the editor is not fitted yet.

    Returns:
        Name -> reason, for the observations that have nothing to observe.

    Raises:
        EditbenchError: an observation does not work for this job.
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
    """Run every `AfterWalk` observation and write its file.

    Args:
        folder: of the record.
        observations: name -> observation, all of the job; those of `DuringWalk` are skipped.
        context: what they may use.
        refused: what `check_observations` returned.

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
            # Having nothing to observe is a result too; the record holds the reason.
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
    """Run an observation; if it runs out of memory, repeat it with smaller batches."""

    # The observation makes its own batches, of the size given by the context.
    def work(context: ObservationContext) -> Observed | None:
        before = context.generator.decoded
        try:
            with torch.no_grad():
                found = observation.look(context)
        except Unsupported as error:
            # Having nothing to observe is a result; any other error is a fault and fails the job.
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
