"""Testbeds of the suite: small networks with a bank on disk and a judge, as a job has them.

- latents: `toy.ToyGenerator` with a diagonal covariance, and no pictures. Each logit depends mainly
  on one axis, so that a method without labels (principal directions, single channels) finds
  controls too.
- pictures: a 16x16 StyleGAN2 of random weights, judged by the colours of its quarters, for editors
  that need images or a StyleGAN2.
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

from editbench.bank.bank import Bank, Split
from editbench.bank.build import build_bank
from editbench.bank.layout import shard_folder
from editbench.bank.spec import BankSpec
from editbench.base.attributes import Attributes
from editbench.base.files import seal_folder
from editbench.base.spaces import Codes, Space
from editbench.conformance.toy import BINARY, MIXED, LinearScorer, ToyGenerator
from editbench.conformance.watch import global_seed
from editbench.networks.generator import Generator
from editbench.networks.roles import Networks
from editbench.networks.scorer import Scorer
from editbench.networks.stylegan2.generator import StyleGAN2Generator
from editbench.networks.stylegan2.network import StyleGAN2, StyleGAN2Config
from editbench.walk.editor import FitData, Walk

FAMILIES = ("latents", "pictures")
KINDS = {"binary": BINARY, "mixed": MIXED}
DIM = 20
LEAN = 0.3  # weight of a second axis in a logit
APART = 8  # axes from the first to the second, so that no two logits share one
STARTS = 400  # from which walks are drawn
SPEC = BankSpec(n=1000, fit=0.6, tune=0.15, block=250, shard=1000)


class AxisGenerator(ToyGenerator):
    """w = z * scales, scales falling from 3 to 1: axes are the principal directions, in order."""

    scales: Tensor  # (DIM,)

    def __init__(self) -> None:
        super().__init__(DIM)
        self.register_buffer("scales", torch.linspace(3, 1, DIM))

    def map(self, z: Tensor) -> Tensor:
        return z * self.scales


class LatentJudge(LinearScorer):
    """A class of its own, so that every use of one of its objects is a use of the judge."""


class ColourScorer(Scorer):
    """logits = random mixture of the mean colours of a picture's quarters.

    Over the generator's samples they have mean 0 and deviation 2, so that every class is seen.
    """

    mixture: Tensor  # (12, width)
    bias: Tensor  # (width,)

    def __init__(
        self, attributes: Attributes, generator: Generator, seed: int, samples: int = 256
    ) -> None:
        """Draw the mixture, and scale it by the generator's own samples.

        Args:
            attributes: that are scored.
            generator: of pictures, on any device.
            seed: of the mixture.
            samples: decoded at once.
        """
        super().__init__()
        self.attributes = attributes
        self.digest = f"colours {attributes.names} {seed}"
        rng = torch.Generator().manual_seed(seed)
        z = torch.randn(samples, generator.z_dim, generator=rng)
        device = next(generator.parameters()).device
        with torch.no_grad():
            features = self.features(generator.decode(Codes(Space.Z, z.to(device)))).cpu()
        mixture = torch.randn(features.shape[1], attributes.width, generator=rng)
        logits = features @ mixture
        # Standardised: random weights alone could put all pictures on one side.
        self.register_buffer("mixture", mixture * (2 / logits.std(0)))
        self.register_buffer("bias", -(logits * (2 / logits.std(0))).mean(0))

    def features(self, decoded: Tensor) -> Tensor:
        """Mean colours of the quarters: (N, 3, R, R) -> (N, 12)."""
        return F.adaptive_avg_pool2d(decoded, 2).flatten(1)

    def forward(self, decoded: Tensor) -> Tensor:
        return self.features(decoded) @ self.mixture.to(decoded) + self.bias.to(decoded)


class PictureJudge(ColourScorer):
    """As LatentJudge, for pictures."""


@dataclass
class Testbed:
    """Networks, a bank on disk, and what an editor may learn from."""

    __test__ = False  # pytest would take the class for a group of tests

    family: str  # one of FAMILIES
    kind: str  # of the attributes, one of KINDS
    generator: Generator
    teacher: Scorer
    judge: Scorer
    bank: Bank

    def data(self) -> FitData:
        """What an editor may learn from, as a copy: a change of it affects no other editor."""
        fit = copied(self.bank.split("fit"))
        tune = copied(self.bank.split("tune"))
        sigma = torch.from_numpy(self.bank.sigma["teacher"]).float()
        return FitData(self.generator, self.teacher, fit, tune, sigma, seed=0)

    @property
    def last(self) -> nn.Module:
        """A layer that every decoded sample passes, also where `decode` was bypassed."""
        if isinstance(self.generator, StyleGAN2Generator):
            return list(self.generator.network.synthesis.layers.values())[-1]
        return self.generator.inner("conv")

    @torch.no_grad()
    def walk(
        self,
        space: Space,
        attribute: str,
        n: int = 24,
        source: int | None = None,
        target: int | None = None,
    ) -> Walk:
        """New starts, as the engine begins a walk.

        Args:
            space: where to walk.
            attribute: that is edited.
            n: starts, at most.
            source: class that all starts have; None for any.
            target: class that all are sent to; None for the next class (of the last one the first;
                of the last of an ordered attribute the one before).
        """
        item = self.teacher.attributes[attribute]
        own, logits = self._starts[space == Space.Z]
        labels = self.teacher.attributes.labels(logits, attribute)
        rows = torch.arange(n) if source is None else (labels == source).nonzero()[:n, 0]
        codes = self.generator.lift(own[rows], space)
        labels = labels[rows]
        if target is not None:
            aim = torch.full_like(labels, target)
        else:
            last = labels == len(item.classes) - 1
            step = torch.where(last, -1, 1) if item.ordered else 1
            aim = (labels + step) % len(item.classes)
        # Indices with gaps, so that an editor that takes them for rows of the batch fails.
        index = torch.arange(len(rows)) * 7 + 300
        return Walk(attribute, index, codes, codes, labels, aim, latent=own[rows])

    @cached_property
    def _starts(self) -> dict[bool, tuple[Tensor, Tensor]]:
        """(latents, the teacher's logits) of new samples; True: z, False: w."""
        z = torch.randn(STARTS, self.generator.z_dim, generator=torch.Generator().manual_seed(5))
        w = self.generator.map(z)
        logits = self.teacher(self.generator.decode(Codes(Space.W, w)))
        return {True: (z, logits), False: (w, logits)}


def clone_walk(walk: Walk, dtype: torch.dtype | None = None, device: str | None = None) -> Walk:
    """The same walk in memory of its own.

    Args:
        walk: to copy.
        dtype: of its codes; None for the same.
        device: of the copy; None for the same.
    """

    def moved(x: Tensor) -> Tensor:
        # Indices and classes stay integers.
        if dtype is not None and x.is_floating_point():
            x = x.to(dtype)
        return x.to(device or x.device).clone()

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
    """A split in memory of its own.

    Args:
        split: to copy.
        keep: (m,) rows to copy; None for all.
    """
    rows = torch.arange(len(split)) if keep is None else keep
    w = None if split.w is None else split.w[rows]
    # An index makes a copy, where a slice would share the memory.
    return Split(split.index[rows], split.z[rows], w, split.logits[rows])


# -- making them
def make_testbed(family: str, kind: str, folder: Path) -> Testbed:
    """Build a testbed.

    Args:
        family: one of FAMILIES.
        kind: one of KINDS.
        folder: takes its bank.
    """
    generator, teacher, judge = make_networks(family, kind)
    networks = Networks(generator, teacher, judge)
    bank = build_bank(folder / f"{family}-{kind}", f"{family}-{kind}", SPEC, lambda: networks)
    return Testbed(family, kind, generator, teacher, judge, bank)


def make_networks(family: str, kind: str) -> tuple[Generator, Scorer, Scorer]:
    """Generator, teacher and judge of a family, for attributes of a kind.

    Args:
        family: one of FAMILIES.
        kind: one of KINDS.
    """
    make = _pictures if family == "pictures" else _latents
    return make(KINDS[kind])


def bare_generator(family: str, spaces: Sequence[Space]) -> Generator:
    """The generator of a family, offering some spaces only.

    Args:
        family: one of FAMILIES.
        spaces: that it says it has; what it can decode is not changed.
    """
    generator = _stylegan2() if family == "pictures" else AxisGenerator()
    generator.spaces = tuple(spaces)
    return generator


def other_bank(bank: Bank, folder: Path) -> Bank:
    """A bank that differs only where an editor may not look: test samples, and the judge's logits.

    Args:
        bank: to copy, with its identity.
        folder: where the copy goes.
    """
    shutil.copytree(bank.folder, folder)
    # Noise of size 1 in place of codes and logits: any use of it shows.
    rng = np.random.Generator(np.random.Philox(key=11))
    first, last = SPEC.split("test")
    shard = shard_folder(folder, 0)
    for name in bank.fields:
        values = np.load(shard / f"{name}.npy")
        # An editor may not use the judge's logits of the fit and tune samples either.
        rows = slice(None) if name == "judge" else slice(first, last)
        values[rows] = rng.normal(size=values[rows].shape)
        np.save(shard / f"{name}.npy", values)
    # The files have changed on purpose, so they get new checksums.
    seal_folder(shard, {"rows": [0, SPEC.n]})
    return Bank(folder)


def other_judge(testbed: Testbed) -> Scorer:
    """A judge with other answers."""
    attributes = testbed.judge.attributes
    if testbed.family == "pictures":
        return PictureJudge(attributes, testbed.generator, 31)
    return LatentJudge(attributes, axis_normals(attributes.width, shift=5))


def axis_normals(width: int, shift: int = 0) -> Tensor:
    """Unit normals of linear logits.

    Args:
        width: number of logits.
        shift: axis of the first logit.

    Returns:
        (width, DIM); row k is axis k + shift, and a little of an axis of its own.
    """
    axes = torch.eye(DIM)
    rows = axes.roll(shift, 1)[:width] + LEAN * axes.roll(shift + APART, 1)[:width]
    return rows / rows.norm(dim=1, keepdim=True)


def _latents(attributes: Attributes) -> tuple[Generator, Scorer, Scorer]:
    normals = axis_normals(attributes.width)
    # The judge agrees with the teacher in most samples, but not in all, as trained ones do.
    judge = LatentJudge(attributes, normals + 0.05)
    return AxisGenerator(), LinearScorer(attributes, normals), judge


def _stylegan2() -> Generator:
    config = StyleGAN2Config(16, (16, 16, 16), 16, 16, mapping_layers=2)
    with global_seed(1):  # its layers draw their weights from the global generator
        return StyleGAN2Generator(StyleGAN2(config))


def _pictures(attributes: Attributes) -> tuple[Generator, Scorer, Scorer]:
    generator = _stylegan2()
    teacher = ColourScorer(attributes, generator, 2)
    return generator, teacher, PictureJudge(attributes, generator, 3)
