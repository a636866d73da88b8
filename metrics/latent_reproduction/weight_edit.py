"""An editor's edit at one strength, of samples of the bank and of new ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from editbench.base.seeding import normals
from editbench.base.spaces import Codes, Space
from editbench.walk.editor import Walk
from editbench.walk.observation import Scene
from editbench.walk.strength import StrengthPath, aim_walk, sides, start_walks

COMMON = 0  # seed of the draws of z, the same for every method


class WeightEdit:
    """The edit of any latents, towards the class of t > 0.

    Attributes:
        layer: whose weight is shifted; '' where none is.
        latent_space: W, or Z of a generator without it.
    """

    def __init__(self, scene: Scene, strength: float) -> None:
        self.scene, self.generator, self.strength = scene, scene.generator, strength
        self.away, self.towards = sides(scene.judge.attributes[scene.attribute], scene.target)
        self.latent_space = Space.W if Space.W in scene.generator.spaces else Space.Z
        _, walk, _ = next(starts(replace(scene, batch=1), 1))
        shift = self._codes(walk).shift
        self.layer = "" if shift is None else shift.layer

    def _codes(self, walk: Walk) -> Codes:
        return StrengthPath(self.scene.editor, aim_walk(walk, self.towards, self.away)).at(self.strength)

    def batches(self, n: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """The first n samples of the test split: rows of 0..n, pictures before and after."""
        for rows, walk, _ in starts(self.scene, n):
            assert walk.latent is not None
            before = self.generator.decode(Codes(self.latent_space, walk.latent)).float()
            yield rows, before, self.generator.decode(self._codes(walk)).float()

    def latents(self, rows: slice, field: str) -> Tensor:
        """z or w of some of the first samples of the test split."""
        first = self.scene.bank.spec.split("test")[0]
        values = self.scene.bank.array(field).range(first + rows.start, first + rows.stop)
        return torch.from_numpy(np.array(values)).to(self.scene.device)

    def draw(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """New z and latents (w, or z where there is no W), items first..last - 1 of one stream for all methods."""
        z = torch.from_numpy(
            normals(COMMON, "reproduction", first, last, self.generator.z_dim)
        ).float()
        z = z.to(self.scene.device)
        with torch.no_grad():
            return z, self.generator.map(z) if self.latent_space is Space.W else z

    def pictures(self, latent: Tensor) -> Tensor:
        """The edit of latents (n, d), without gradients."""
        index = torch.arange(len(latent), device=latent.device)
        codes = self.generator.lift(latent, self.scene.editor.space)
        label = torch.full_like(index, self.away)
        walk = Walk(self.scene.attribute, index, codes, codes, label, label, latent=latent)
        with torch.no_grad():
            return self.generator.decode(self._codes(walk)).float()
