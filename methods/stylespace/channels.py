"""Channels of StyleSpace: statistics over the bank, and ranking by positive exemplars.

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

# Samples whose styles are in memory at a time: with 9088 channels in float64 they take 75 MB.
BLOCK = 1024
MIN_EXEMPLARS = 10
STD_FLOOR = 1e-3  # lower bound of the exemplars' standard deviation, in sigmas
CONSTANT = 1e-6  # a channel whose sigma is below this share of the largest sigma is constant


@dataclass(frozen=True)
class ChannelMoments:
    """Moments of every channel of S over the samples of a bank.

    Args:
        mean: (d,) float64.
        std: (d,) float64, population standard deviation (divided by n).
    """

    mean: Tensor
    std: Tensor

    @property
    def varies(self) -> Tensor:
        """(d,) bool: the channels that are not constant."""
        return self.std > CONSTANT * self.std.max()


@dataclass(frozen=True)
class ChannelRanking:
    """Ranking of channels by how well they separate the positives of a class from the bank.

    Args:
        order: movable channels, best first.
        theta: (d,) |mean| / std of the exemplars' deltas; minus infinity for a channel that
            cannot be chosen.
        delta: (d,) signed mean of the deltas, in sigmas.
    """

    order: Tensor
    theta: Tensor
    delta: Tensor


class Candidates:
    """Candidate edits: directions in units of the channels' sigmas, each stored once.

    `rows` are (d,) directions of unit length and `names` their names. `offered` holds, for each
    attribute and each class that gets a control, its candidates as (position in `rows`, sign given
    by the exemplars or 0 without exemplars), best first.
    """

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.names: list[str] = []
        self.offered: dict[str, list[list[tuple[int, int]]]] = {}

    def add(self, name: str, row: Tensor) -> int:
        """Add a row unless its name is known, and return its position.

        Args:
            name: of the candidate, for the record.
            row: (d,) direction in sigmas of the channels, not zero; it is scaled to unit length.
        """
        if name not in self.names:
            self.names.append(name)
            self.rows.append(row / row.norm())
        return self.names.index(name)

    def add_channel(self, generator: Generator, channel: int) -> int:
        """Add the positive direction of a single channel, and return its position.

        Args:
            generator: with S.
            channel: index into a whole code of S, over all layers.
        """
        row = torch.zeros(sum(generator.style_sizes), dtype=torch.float64)
        row[channel] = 1.0
        return self.add(channel_name(generator, channel), row)


def offsets(generator: Generator) -> list[int]:
    """Index at which each layer begins in a code of S, followed by the length of the code."""
    return np.concatenate([[0], np.cumsum(generator.style_sizes)]).astype(int).tolist()


def movable(generator: Generator) -> Tensor:
    """(d,) bool: the channels of all layers but ToRGB."""
    # A ToRGB channel only tints the image and is never edited.
    keep = []
    for name, size in zip(generator.layer_names, generator.style_sizes):
        keep.append(torch.full((size,), not name.startswith("rgb")))
    return torch.cat(keep)


def channel_name(generator: Generator, channel: int) -> str:
    """'conv8:17' for channel 17 of the layer conv8.

    Args:
        generator: with S.
        channel: index into a whole code of S, over all layers.
    """
    # A table of offsets, since layers have different widths.
    starts = offsets(generator)
    layer = int(np.searchsorted(starts, channel, side="right")) - 1
    return f"{generator.layer_names[layer]}:{channel - starts[layer]}"


def channel_moments(generator: Generator, latents: Tensor, block: int = BLOCK) -> ChannelMoments:
    """Moments of the styles of latents (n, d) in float64, computed block by block.

    The latents are those of the bank, truncated like the ones that will be edited.

    Args:
        generator: with S.
        latents: (n, d).
        block: number of latents per block.
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
            # The parallel update of Chan, Golub & LeVeque (1983). Sums of squares about the mean
            # avoid the cancellation of sums about zero.
            square = square + (styles - own).square().sum(0) + gap.square() * (n * m / total)
            mean = mean + gap * (m / total)
            n = total
    return ChannelMoments(mean.clone(), (square / max(n, 1)).sqrt().clone())


def positive_bank(odds: Tensor, labels: Tensor, target: int, share: float, at_least: int) -> Tensor:
    """Positions of the most extreme samples of a class.

    They are the `share` of all samples with the highest log-odds, restricted to samples that the
    teacher assigns to the class.

    Args:
        odds: (n,) log-odds of the class.
        labels: (n,) decided classes.
        target: the class.
        share: of all n samples.
        at_least: minimum number of samples, if the class has that many.
    """
    members = (labels == target).nonzero()[:, 0]
    # At most as many as the class has: a sample of another class is not an exemplar.
    count = min(max(round(share * len(odds)), at_least), len(members))
    return members[odds[members].argsort(descending=True, stable=True)[:count]]


def draw_exemplars(bank: Tensor, exemplars: int | None, seed: int, *names: object) -> Tensor:
    """Draw exemplars from a positive bank.

    Args:
        bank: (n,) positions of the positives.
        exemplars: how many to draw; None, or n or more, takes all.
        seed: of the draw.
        names: of the draw's random stream.

    Returns:
        Positions of the exemplars, in the order of the bank.
    """
    # Without a draw the ranking does not depend on the seed.
    if exemplars is None or exemplars >= len(bank):
        return bank
    # In the order of the bank, so that sums do not depend on the order of the draw.
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
        allowed: (d,) bool, channels that may be chosen; constant channels never are.
    """
    allowed = allowed.to(bank.std.device) & bank.varies
    sigma = torch.where(allowed, bank.std, 1.0)
    delta = (exemplars.mean - bank.mean) / sigma
    # Without the floor, a channel with nearly equal values in a few exemplars by chance would win.
    ratio = delta.abs() / (exemplars.std / sigma).clamp_min(STD_FLOOR)
    theta = torch.where(allowed, ratio, -torch.inf)
    order = theta.argsort(descending=True, stable=True)[: int(allowed.sum())]
    return ChannelRanking(order, theta, delta)


def rank_for_class(
    data: FitData, bank: ChannelMoments, positives: Tensor, exemplars: int | None, *names: object
) -> ChannelRanking:
    """Rank the channels for a class, with exemplars drawn from its positives.

    Args:
        data: the splits and the generator.
        bank: moments of the bank.
        positives: positions in the fit split.
        exemplars: number of exemplars to draw; None takes all.
        names: of the draw's random stream.

    Raises:
        EditbenchError: there are fewer than 10 exemplars, too few for a standard deviation.
    """
    chosen = draw_exemplars(positives, exemplars, data.seed, *names)
    if len(chosen) < MIN_EXEMPLARS:
        raise EditbenchError(
            f"{len(chosen)} exemplars are too few to rank channels, {MIN_EXEMPLARS} are needed"
        )
    found = channel_moments(data.generator, data.latents(data.fit)[chosen])
    return rank_channels(found, bank, movable(data.generator))
