"""Channels of StyleSpace: their statistics over the bank and their ranking by positive exemplars.

Wu, Lischinski & Shechtman, "StyleSpace Analysis: Disentangled Controls for StyleGAN Image
Generation", CVPR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from editbench.base import seeding
from editbench.base.errors import EditbenchError
from editbench.base.spaces import Space
from editbench.networks.generator import Generator
from editbench.walk.editor import FitData

# Samples whose styles are in memory at a time: 9088 channels of them in float64 take 75 MB
BLOCK = 1024
MIN_EXEMPLARS = 10
STD_FLOOR = 1e-3  # of the exemplars' spread, in sigmas
CONSTANT = 1e-6  # a channel whose sigma is below this share of the largest one does not vary


@dataclass(frozen=True)
class ChannelMoments:
    """Moments of every channel of S over the samples of a bank.

    Args:
        mean: (d,) float64.
        std: (d,) float64, over the population: divided by n.
    """

    mean: Tensor
    std: Tensor

    @property
    def varies(self) -> Tensor:
        """(d,) bool: the channels that are not constant."""
        return self.std > CONSTANT * self.std.max()


@dataclass(frozen=True)
class ChannelRanking:
    """How channels tell the positives of a class from the bank.

    Args:
        order: movable channels, best first.
        theta: (d,) |mean| / std of the exemplars' deltas; minus infinity for a channel that
            cannot be chosen.
        delta: (d,) the signed mean, in sigmas.
    """

    order: Tensor
    theta: Tensor
    delta: Tensor


class Candidates:
    """What may become an edit: directions in sigmas of the channels, each kept once.

    `rows` are (d,) of unit length, `names` say what they are. `offered` holds for each attribute,
    and for each class that gets a control, its candidates as (position in rows, sign by the
    exemplars or 0 where there are none), best first.
    """

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.names: list[str] = []
        self.offered: dict[str, list[list[tuple[int, int]]]] = {}

    def add(self, name: str, row: Tensor) -> int:
        """Position of the row of that name."""
        if name not in self.names:
            self.names.append(name)
            self.rows.append(row / row.norm())
        return self.names.index(name)

    def add_channel(self, generator: Generator, channel: int) -> int:
        """Position of a single channel, upwards."""
        row = torch.zeros(sum(generator.style_sizes), dtype=torch.float64)
        row[channel] = 1.0
        return self.add(channel_name(generator, channel), row)


def offsets(generator: Generator) -> list[int]:
    """Where each layer begins in a code of S, and at the end the length of the code."""
    return np.concatenate([[0], np.cumsum(generator.style_sizes)]).astype(int).tolist()


def movable(generator: Generator) -> Tensor:
    """(d,) bool: the channels of all layers but ToRGB."""
    # A ToRGB channel only tints the picture, and is never edited.
    keep = []
    for name, size in zip(generator.layer_names, generator.style_sizes):
        keep.append(torch.full((size,), not name.startswith("rgb")))
    return torch.cat(keep)


def channel_name(generator: Generator, channel: int) -> str:
    """'conv8:17' for channel 17 of the layer conv8."""
    # An explicit table of offsets: layers differ in width.
    starts = offsets(generator)
    layer = int(np.searchsorted(starts, channel, side="right")) - 1
    return f"{generator.layer_names[layer]}:{channel - starts[layer]}"


def channel_moments(generator: Generator, latents: Tensor, block: int = BLOCK) -> ChannelMoments:
    """Moments of the styles of latents (n, d), a block at a time, in float64.

    The latents are the bank's own, truncated as those that will be edited.

    Args:
        generator: with S.
        latents: (n, d).
        block: latents at a time.
    """
    n = 0
    mean = torch.zeros(())
    square = torch.zeros(())
    with torch.inference_mode():
        for part in latents.split(block):
            styles = generator.lift(part, Space.S).double()
            m = len(styles)
            total = n + len(styles)
            own = styles.mean(0)
            gap = own - mean
            # The parallel update of Chan, Golub & LeVeque (1983): sums of squares about the mean
            # do not cancel, as those about zero would.
            square = square + (styles - own).square().sum(0) + gap.square() * (n * m / total)
            mean = mean + gap * (m / total)
            n = total
    return ChannelMoments(mean.clone(), (square / max(n, 1)).sqrt().clone())


def positive_bank(odds: Tensor, labels: Tensor, target: int, share: float, at_least: int) -> Tensor:
    """Positions of the most extreme samples of a class.

    They are the `share` of all samples with the highest log-odds, but only those that the teacher
    puts in the class.

    Args:
        odds: (n,) log-odds of the class.
        labels: (n,) decided classes.
        target: the class.
        share: of all n samples.
        at_least: samples, where the class has them.
    """
    members = (labels == target).nonzero()[:, 0]
    # Not more than the class has: a sample of another class is no exemplar.
    count = min(max(round(share * len(odds)), at_least), len(members))
    return members[odds[members].argsort(descending=True, stable=True)[:count]]


def draw_exemplars(bank: Tensor, exemplars: int | None, seed: int, *names: object) -> Tensor:
    """`exemplars` of a positive bank at random; all of it when None, or when it holds no more."""
    # Nothing to draw: the ranking then depends on no seed.
    if exemplars is None or exemplars >= len(bank):
        return bank
    # In the order of the bank, so that sums are the same whichever way they were drawn.
    rows = seeding.rng(seed, "stylespace", *names).permutation(len(bank))[:exemplars]
    return bank[torch.from_numpy(np.sort(rows)).to(bank.device)]


def rank_channels(
    exemplars: ChannelMoments, bank: ChannelMoments, allowed: Tensor
) -> ChannelRanking:
    """Rank channels u by theta_u = |mean(delta_u)| / std(delta_u), the largest first.

    delta_u = (s_u - mu_u) / sigma_u over the exemplars, mu and sigma those of the bank.

    Args:
        exemplars: moments of the positive exemplars.
        bank: moments of the bank.
        allowed: (d,) bool, the channels that may be chosen; constant ones never are.
    """
    allowed = allowed.to(bank.std.device) & bank.varies
    sigma = torch.where(allowed, bank.std, 1.0)
    delta = (exemplars.mean - bank.mean) / sigma
    # Without the floor a channel that a few exemplars happen to share would win.
    ratio = delta.abs() / (exemplars.std / sigma).clamp_min(STD_FLOOR)
    theta = torch.where(allowed, ratio, -torch.inf)
    order = theta.argsort(descending=True, stable=True)[: int(allowed.sum())]
    return ChannelRanking(order, theta, delta)


def rank_for_class(
    data: FitData, bank: ChannelMoments, positives: Tensor, exemplars: int | None, *names: object
) -> ChannelRanking:
    """The ranking of the channels for a class, from exemplars drawn out of its positives.

    Args:
        data: the splits and the generator.
        bank: moments of the bank.
        positives: positions in the fit split.
        exemplars: how many are drawn; None: all.
        names: what the draw is for.

    Raises:
        EditbenchError: fewer exemplars than 10, whose spread would mean nothing.
    """
    chosen = draw_exemplars(positives, exemplars, data.seed, *names)
    if len(chosen) < MIN_EXEMPLARS:
        raise EditbenchError(
            f"{len(chosen)} exemplars are too few to rank channels, {MIN_EXEMPLARS} are needed"
        )
    found = channel_moments(data.generator, data.latents(data.fit)[chosen])
    return rank_channels(found, bank, movable(data.generator))
