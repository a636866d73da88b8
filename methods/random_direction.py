"""The floor of every comparison: one random direction a start, whatever the attribute."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from editbench.methods.shared.selection import walk_space
from torch import Tensor

from editbench.base.seeding import normals
from editbench.base.validation import check_positive
from editbench.walk.editor import Editor, FitData, FitReport, Walk


class RandomDirection(Editor):
    """next = codes + step * u(start), with u uniform on the sphere and depending on (seed, start index) alone.

    Args:
        delta: step length in units of StyleGAN2-FFHQ's W (or Z), scaled to the space at hand if `scale_step`.
        space: 'w' or 'z'.
    """

    citation = "control without knowledge"

    def __init__(
        self,
        delta: float = 0.6,
        scale_step: bool = True,
        space: str = "w",
        layers: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        super().__init__(layers)
        check_positive("delta", delta)
        self.delta, self.scale_step, self.space = float(delta), scale_step, walk_space(space)
        self.unit = f"{self.space.name} units"
        self.seed, self.length = 0, self.delta
        self._forget()

    def _forget(self) -> None:
        self._starts = np.empty(0, np.int64)  # sorted
        self._units = np.empty((0, 0))  # (len(starts), d) float64
        self._cast = torch.empty(0)  # the same, as the walk's codes are

    def fit(self, data: FitData) -> FitReport:
        self._forget()
        self.seed = int(data.seed)
        self.length = data.step_size(self.delta, self.space) if self.scale_step else self.delta
        return FitReport(notes={"step": self.length})

    def directions(self, start: Tensor, like: Tensor) -> Tensor:
        """Unit directions of starts: (n,) -> (n, d), on the device and in the dtype of `like` (n, d)."""
        wanted, dim = start.cpu().numpy(), like.shape[1]
        new = np.setdiff1d(wanted, self._starts)
        if len(new) or self._units.shape[1] != dim:
            self._starts = np.union1d(wanted, self._starts)
            runs = np.split(
                self._starts, np.flatnonzero(np.diff(self._starts) > 1) + 1
            )  # of neighbouring indices
            drawn = np.concatenate(
                [
                    normals(self.seed, "random_direction", int(run[0]), int(run[-1]) + 1, dim)
                    for run in runs
                    if len(run)
                ]
                or [np.empty((0, dim))]
            )
            self._units = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
            self._cast = torch.empty(0)
        if self._cast.shape != self._units.shape or (self._cast.dtype, self._cast.device) != (
            like.dtype,
            like.device,
        ):
            self._cast = torch.from_numpy(self._units).to(like)
        return self._cast[torch.from_numpy(np.searchsorted(self._starts, wanted)).to(like.device)]

    def step(self, walk: Walk) -> Tensor:
        return walk.codes + self.length * self.directions(walk.start, walk.codes)

    def state(self) -> dict[str, Tensor]:
        return {
            "seed": torch.tensor(self.seed),
            "step": torch.tensor(self.length, dtype=torch.float64),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._forget()
        self.seed, self.length = int(state["seed"]), float(state["step"])
