"""Numbers of every decoded sample that the judge's logits do not hold, taken while the sample lives.

Without gauges a walk is what it always was; each gauge adds columns to the trajectories. A gauge changes no step.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from editbench.base.spaces import Codes
from editbench.networks.generator import Generator
from editbench.walk.editor import Walk

if TYPE_CHECKING:
    from editbench.networks.roles import Networks


class Gauge(abc.ABC):
    """Base of all gauges."""

    def prepare(self, networks: Networks, device: str) -> None:  # noqa: B027 - most need nothing
        """Called once before the walk. Raises EditbenchError where these networks cannot be measured so."""

    def reference(self, decoded: Tensor) -> Tensor:
        """What is kept of a start's own image for the comparison: (n, ...) -> (n, e), e as small as may be."""
        return decoded.new_empty(len(decoded), 0)

    @abc.abstractmethod
    def measure(
        self, walk: Walk, codes: Codes, decoded: Tensor, reference: Tensor
    ) -> dict[str, Tensor]:
        """Column name -> (n,) numbers of n decoded samples. A row depends on its sample and its start alone.

        Args:
            codes: what was decoded. reference: (n, e) what `reference` gave for the samples' starts.
        """


class Gauges:
    """The gauges of a walk.

    Attributes:
        seconds: time they took. decoded: images of starts that were decoded for them.
    """

    def __init__(self, gauges: Mapping[str, Gauge] | None = None) -> None:
        self.gauges = dict(gauges or {})
        self.seconds, self.decoded = 0.0, 0
        self._starts = torch.empty(0, dtype=torch.int64)  # sorted
        self._references: dict[str, Tensor] = {}
        self._parts: list[dict[str, Tensor]] = []

    def start(self, walk: Walk, codes: Codes, generator: Generator, batch: int) -> None:
        """Keep the references of all starts, and measure these as step 0."""
        if not self.gauges:
            return
        began, order = time.perf_counter(), walk.start.argsort()
        kept: dict[str, list[Tensor]] = {name: [] for name in self.gauges}
        self._starts = walk.start[order]
        for first in range(0, len(walk), batch):
            rows = order[first : first + batch]
            decoded = generator.decode(codes[rows])
            for name, gauge in self.gauges.items():
                kept[name].append(gauge.reference(decoded))
        self._references = {name: torch.cat(parts) for name, parts in kept.items()}
        for first in range(
            0, len(walk), batch
        ):  # as the walk has them, so that step 0 is measured as any other
            part = slice(first, first + batch)
            self._measure(walk[part], codes[part], generator.decode(codes[part]))
        self.decoded += 2 * len(walk)
        self.seconds += time.perf_counter() - began

    def measure(self, walk: Walk, codes: Codes, decoded: Tensor) -> None:
        """Measure a batch of a step; batches come in the order of the walk."""
        if len(self._starts):
            began = time.perf_counter()
            self._measure(walk, codes, decoded)
            self.seconds += time.perf_counter() - began

    def take(self) -> dict[str, Tensor]:
        """The columns of what was measured since the last call."""
        parts, self._parts = self._parts, []
        return {
            name: torch.cat([part[name] for part in parts]) for name in (parts[0] if parts else ())
        }

    def _measure(self, walk: Walk, codes: Codes, decoded: Tensor) -> None:
        place = torch.searchsorted(self._starts, walk.start)
        columns: dict[str, Tensor] = {}
        for name, gauge in self.gauges.items():
            columns |= gauge.measure(walk, codes, decoded, self._references[name][place])
        self._parts.append(columns)
