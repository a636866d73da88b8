"""An editor's edit at one strength, applied to samples of the bank and to new samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.walk.editor import Walk
from editbench.walk.observation import ObservationContext
from editbench.walk.strength import StrengthPath, aim_walk, sides, start_walks

COMMON = 0  # seed of the draws of z, the same for every method


class WeightEdit:
    """An edit towards the class of t > 0 at a fixed strength, applicable to any latents."""

    def __init__(self, context: ObservationContext, strength: float) -> None:
        """Fix an edit.

        Args:
            context: editor, networks and bank of the job.
            strength: in steps.
        """
        self.context = context
        self.generator = context.generator
        self.strength = strength
        self.away, self.towards = sides(context.judge.attributes[context.attribute], context.target)
        self.latent_space = context.generator.latent_space
        # One sample is edited to find the layer whose weight is shifted; '' if there is none.
        _, walk, _ = next(start_walks(replace(context, batch=1), 1))
        shift = self._codes(walk).shift
        self.layer = "" if shift is None else shift.layer

    def _codes(self, walk: Walk) -> Codes:
        path = StrengthPath(self.context.editor, aim_walk(walk, self.towards, self.away))
        return path.at(self.strength)

    def batches(self, n: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """The first n samples of the test split.

        Args:
            n: number of samples.

        Yields:
            rows: of the batch, in 0..n.
            before: (b, ...) samples.
            after: (b, ...) their edits.
        """
        for rows, walk, _ in start_walks(self.context, n):
            assert walk.latent is not None
            before = self.generator.decode(Codes(self.latent_space, walk.latent)).float()
            after = self.generator.decode(self._codes(walk)).float()
            yield rows, before, after

    def latents(self, rows: slice, field: str) -> Tensor:
        """Latents of some of the first samples of the test split.

        Args:
            rows: of b samples, in 0..n.
            field: 'z' or 'w'.

        Returns:
            (b, d).
        """
        first = self.context.bank.spec.split("test")[0]
        values = self.context.bank.array(field).range(first + rows.start, first + rows.stop)
        # Copied: torch cannot take the read-only memory of a stored array.
        return torch.from_numpy(np.array(values)).to(self.context.device)

    def draw(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Draw new samples from one stream for all methods.

        Args:
            first: position of the first sample in the stream.
            last: position after the last sample.

        Returns:
            z: (b, d).
            latents: (b, d) w, or z if there is no W.
        """
        drawn = normals(COMMON, "reproduction", first, last, self.generator.z_dim)
        # Rounded on the CPU, so that every device has the same float32 numbers.
        z = torch.from_numpy(drawn).float().to(self.context.device)
        with torch.no_grad():
            return z, self.generator.map(z) if self.latent_space is Space.W else z

    def pictures(self, latent: Tensor) -> Tensor:
        """Edit latents and decode them, without gradients.

        Args:
            latent: (n, d).

        Returns:
            (n, ...) decoded edits.
        """
        # New samples have no bank index, which an editor may use as a key of random draws.
        index = torch.arange(len(latent), device=latent.device)
        codes = self.generator.lift(latent, self.context.editor.space)
        label = torch.full_like(index, self.away)
        walk = Walk(self.context.attribute, index, codes, codes, label, label, latent=latent)
        with torch.no_grad():
            return self.generator.decode(self._codes(walk)).float()
