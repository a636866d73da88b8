"""The worlds of the suite: small, with a bank on disk and a judge, as a job has them. One has no pictures, one has.

latents: `toy.ToyGenerator` with a diagonal covariance; each logit leans on one axis, so that also a method without
labels (principal directions, single channels) finds controls. pictures: a 16x16 StyleGAN2 of random weights, judged by
the colours of its quarters, for editors that need images or a StyleGAN2.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editbench.bank.bank import Bank, BankSpec, Split, shard_folder
from editbench.bank.build import build_bank
from editbench.base.attributes import Attributes
from editbench.base.files import seal_folder
from editbench.base.spaces import Codes, Space
from editbench.conformance.toy import BINARY, MIXED, LinearScorer, ToyGenerator
from editbench.conformance.watch import global_seed
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.walk.editor import FitData, Walk

FAMILIES = ("latents", "pictures")
KINDS = {"binary": BINARY, "mixed": MIXED}
DIM = 20
LEAN, APART = 0.3, 8  # how much a logit leans on a second axis, so many axes on
STARTS = 400  # from which walks are drawn
SPEC = BankSpec(n=1000, fit=0.6, tune=0.15, block=250, shard=1000)


class AxisGenerator(ToyGenerator):
    """w = z * scales, scales falling from 3 to 1: the axes are the principal directions, in order."""

    scales: Tensor

    def __init__(self) -> None:
        super().__init__(DIM)
        self.register_buffer("scales", torch.linspace(3, 1, DIM))

    def map(self, z: Tensor) -> Tensor:
        return z * self.scales


class LatentJudge(LinearScorer):
    """A class of its own: what an editor does with an object of this class, it does with the judge."""


class ColourScorer(Scorer):
    """logits = random mixture of the mean colours of a picture's quarters, of mean 0 and deviation 2 over the
    generator's samples, so that every class is seen."""

    mixture: Tensor
    bias: Tensor

    def __init__(self, attributes: Attributes, generator: Generator, seed: int) -> None:
        super().__init__()
        self.attributes, self.digest = attributes, f"colours {attributes.names} {seed}"
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            features = self.features(
                generator.decode(Codes(Space.Z, torch.randn(256, generator.z_dim, generator=rng)))
            )
        mixture = torch.randn(features.shape[1], attributes.width, generator=rng)
        logits = features @ mixture
        self.register_buffer("mixture", mixture * (2 / logits.std(0)))
        self.register_buffer("bias", -(logits * (2 / logits.std(0))).mean(0))

    def features(self, decoded: Tensor) -> Tensor:
        """(N, 3, R, R) -> (N, 12)."""
        return F.adaptive_avg_pool2d(decoded, 2).flatten(1)

    def forward(self, decoded: Tensor) -> Tensor:
        return self.features(decoded) @ self.mixture.to(decoded) + self.bias.to(decoded)


class PictureJudge(ColourScorer):
    """As LatentJudge, for pictures."""


@dataclass
class World:
    """Networks, a bank on disk and what an editor may learn from. kind: 'binary' or 'mixed', its attributes."""

    family: str
    kind: str
    generator: Generator
    teacher: Scorer
    judge: Scorer
    bank: Bank

    def data(self, bank: Bank | None = None, seed: int = 0) -> FitData:
        """Fit and tune splits in memory of their own, so that an editor cannot spoil another's."""
        bank = bank or self.bank
        fit, tune = (copied(bank.split(name)) for name in ("fit", "tune"))
        return FitData(
            self.generator,
            self.teacher,
            fit,
            tune,
            torch.from_numpy(bank.sigma["teacher"]).float(),
            seed,
        )

    @property
    def last(self) -> nn.Module:
        """The layer that every decoded sample passes."""
        return (
            list(self.generator.network.synthesis.layers.values())[-1]
            if isinstance(self.generator, StyleGAN2Generator)
            else self.generator.inner("conv")
        )

    @torch.no_grad()
    def walk(
        self,
        space: Space,
        attribute: str,
        n: int = 24,
        source: int | None = None,
        target: int | None = None,
    ) -> Walk:
        """n new starts, as the engine begins a walk; `source` takes starts of one class.

        The target is the next class (of the last one the first; of an ordered attribute the one before), or `target`.
        """
        item, own, logits = self.teacher.attributes[attribute], *self._starts[space == Space.Z]
        labels = self.teacher.attributes.labels(logits, attribute)
        rows = torch.arange(n) if source is None else (labels == source).nonzero()[:n, 0]
        codes, labels, latent = self.generator.lift(own[rows], space), labels[rows], own[rows]
        step = torch.where(labels == len(item.classes) - 1, -1, 1) if item.ordered else 1
        aim = (
            (labels + step) % len(item.classes)
            if target is None
            else torch.full_like(labels, target)
        )
        return Walk(
            attribute, torch.arange(len(rows)) * 7 + 300, codes, codes, labels, aim, latent=latent
        )

    @cached_property
    def _starts(self) -> dict[bool, tuple[Tensor, Tensor]]:
        """(latents, the teacher's logits) of new samples; True: z, False: w."""
        z = torch.randn(STARTS, self.generator.z_dim, generator=torch.Generator().manual_seed(5))
        w = self.generator.map(z)
        logits = self.teacher(self.generator.decode(Codes(Space.W, w)))
        return {True: (z, logits), False: (w, logits)}


def clone_walk(walk: Walk, dtype: torch.dtype | None = None, device: str | None = None) -> Walk:
    """The same walk in memory of its own, its codes in another dtype or on another device if asked for."""

    def moved(x: Tensor) -> Tensor:
        return (
            (x.to(dtype) if dtype is not None and x.is_floating_point() else x)
            .to(device or x.device)
            .clone()
        )

    return replace(
        walk,
        start=moved(walk.start),
        origin=moved(walk.origin),
        codes=moved(walk.codes),
        source=moved(walk.source),
        target=moved(walk.target),
        latent=None if walk.latent is None else moved(walk.latent),
    )


def copied(split: Split, keep: Tensor | None = None) -> Split:
    """A split, or the rows of it to keep, in memory of its own."""
    rows = torch.arange(len(split)) if keep is None else keep
    return Split(
        split.index[rows],
        split.z[rows],
        None if split.w is None else split.w[rows],
        split.logits[rows],
    )


# -- making them -------------------------------------------------------------------------------------------------------
def make_world(family: str, kind: str, folder: Path) -> World:
    """Build one world; `folder` takes its bank."""
    networks = _pictures(KINDS[kind]) if family == "pictures" else _latents(KINDS[kind])
    bank = build_bank(folder / f"{family}-{kind}", f"{family}-{kind}", SPEC, lambda: networks)
    return World(family, kind, *networks, bank)


def bare_generator(family: str, spaces: Sequence[Space]) -> Generator:
    """The generator of a family that offers these spaces only."""
    generator = _stylegan2() if family == "pictures" else AxisGenerator()
    generator.spaces = tuple(spaces)
    return generator


def other_bank(bank: Bank, folder: Path) -> Bank:
    """The same fit and tune samples, teacher and identity; other test samples, and another judge's logits."""
    shutil.copytree(bank.folder, folder)
    rng = np.random.Generator(np.random.Philox(key=11))
    first, last = SPEC.split("test")
    shard = shard_folder(folder, 0)
    for name in bank.fields:
        values = np.load(shard / f"{name}.npy")
        rows = slice(None) if name == "judge" else slice(first, last)
        values[rows] = rng.normal(size=values[rows].shape)
        np.save(shard / f"{name}.npy", values)
    seal_folder(shard, {"rows": [0, SPEC.n]})
    return Bank(folder)


def other_judge(world: World) -> Scorer:
    """A judge that answers otherwise."""
    attributes = world.judge.attributes
    return (
        PictureJudge(attributes, world.generator, 31)
        if world.family == "pictures"
        else (LatentJudge(attributes, axis_normals(attributes.width, shift=5)))
    )


def axis_normals(width: int, shift: int = 0) -> Tensor:
    """Unit normals (width, DIM): row k leans on axis k + shift, and a little on one that no other row leans on."""
    rows = (
        torch.eye(DIM).roll(shift, 1)[:width] + LEAN * torch.eye(DIM).roll(shift + APART, 1)[:width]
    )
    return rows / rows.norm(dim=1, keepdim=True)


def _latents(attributes: Attributes) -> tuple[Generator, Scorer, Scorer]:
    normals = axis_normals(attributes.width)
    return (
        AxisGenerator(),
        LinearScorer(attributes, normals),
        LatentJudge(attributes, normals + 0.05),
    )


def _stylegan2() -> Generator:
    with global_seed(1):
        return StyleGAN2Generator(
            StyleGAN2(StyleGAN2Config(16, (16, 16, 16), 16, 16, mapping_layers=2))
        )


def _pictures(attributes: Attributes) -> tuple[Generator, Scorer, Scorer]:
    generator = _stylegan2()
    return generator, ColourScorer(attributes, generator, 2), PictureJudge(attributes, generator, 3)
