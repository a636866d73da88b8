"""Base of editors that walk in W or Z with the step length of a paper."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from editbench.base.validation import check_positive
from editbench.methods.shared.options import walk_space
from editbench.walk.editor import Editor, FitData


class LatentEditor(Editor):
    """An editor of W or Z whose step length is given in units of StyleGAN2-FFHQ's W.

    A subclass calls `set_length` in its fit, and moves the codes by `length` in a step.

    Args:
        delta: step length in StyleGAN2-FFHQ's W.
        scale_step: scale `delta` to the spread of this space; otherwise it is used as it is.
        space: 'w' or 'z'.
        layers: as in Editor.

    Raises:
        EditbenchError: an option is out of its range or unknown.
    """

    def __init__(
        self,
        delta: float,
        scale_step: bool,
        space: str,
        layers: tuple[int, int] | Mapping[str, tuple[int, int]] | None,
    ) -> None:
        super().__init__(layers)
        check_positive("delta", delta)
        self.delta = float(delta)
        self.scale_step = scale_step
        self.space = walk_space(space)
        self.unit = f"{self.space.name} units"
        self.length = self.delta  # of a step, in units of this space

    def set_length(self, data: FitData) -> None:
        """Convert the step length to the space of the walk."""
        self.length = data.step_size(self.delta, self.space) if self.scale_step else self.delta

    def state(self) -> dict[str, Tensor]:
        return {"step": torch.tensor(self.length, dtype=torch.float64)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.length = float(state["step"])
