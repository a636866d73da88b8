"""The floor of direction methods: one random direction per start, independent of the attribute."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from editbench.base.devices import to_device
from editbench.base.seeding import normals
from editbench.methods.shared.device_copies import DeviceCopies
from editbench.methods.shared.latent_editor import LatentEditor
from editbench.walk.editor import FitData, FitReport, Walk


class RandomDirection(LatentEditor):
    """next = codes + step * u(start), with u uniform on the sphere.

    u depends only on the seed and on the start's index, so a start's direction does not depend on
    the batch.

    Args:
        delta: see LatentEditor.
        scale_step: see LatentEditor.
        space: see LatentEditor.
        layers: see LatentEditor.
    """

    citation = "control without knowledge"

    def __init__(
        self,
        delta: float = 0.6,
        scale_step: bool = True,
        space: str = "w",
        layers: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        super().__init__(delta, scale_step, space, layers)
        self.seed = 0
        self._forget()

    def _forget(self) -> None:
        # A cache for speed only: the directions are determined by seed and start.
        self._starts = np.empty(0, np.int64)  # sorted
        self._units = torch.empty(0, 0)  # (len(starts), d) float64
        self._copies = DeviceCopies()

    def fit(self, data: FitData) -> FitReport:
        self._forget()
        self.seed = int(data.seed)
        self.set_length(data)
        return FitReport(notes={"step": self.length})

    def directions(self, start: Tensor, like: Tensor) -> Tensor:
        """Unit directions of starts.

        Args:
            start: (n,) indices of starts.
            like: (n, d), whose device and dtype the result takes.

        Returns:
            (n, d).
        """
        wanted = start.cpu().numpy()
        dim = like.shape[1]
        new = np.setdiff1d(wanted, self._starts)
        if len(new) or self._units.shape[1] != dim:
            self._starts = np.union1d(wanted, self._starts)
            self._units = torch.from_numpy(self._draw_units(dim))
        place = torch.from_numpy(np.searchsorted(self._starts, wanted))
        return self._copies.get("units", self._units, like)[to_device(place, like.device)]

    def _draw_units(self, dim: int) -> np.ndarray:
        """Unit directions (len(starts), dim) of the starts known so far."""
        # The random stream gives ranges of rows, so consecutive indices are drawn in one call.
        ends = np.flatnonzero(np.diff(self._starts) > 1) + 1
        drawn = [np.empty((0, dim))]
        for run in np.split(self._starts, ends):
            if len(run):
                first = int(run[0])
                last = int(run[-1]) + 1
                drawn.append(normals(self.seed, "random_direction", first, last, dim))
        rows = np.concatenate(drawn)
        # A normal vector brought to unit length is uniform on the sphere.
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def step(self, walk: Walk) -> Tensor:
        return walk.codes + self.length * self.directions(walk.start, walk.codes)

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"seed": torch.tensor(self.seed)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        super().load_state(state)
        self._forget()
        self.seed = int(state["seed"])
