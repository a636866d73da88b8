"""Channels of StyleSpace that act on one region of the picture, by their gradient maps.

Wu, Lischinski & Shechtman, CVPR 2021, section 4 and the published code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.progress import progress
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator

DISCOUNT = 2.0  # of the region's size in the score
MIN_RATE = 0.5
MIN_MARGIN = 0.25


@dataclass(frozen=True)
class Localised:
    """Which channels act on which region.

    Args:
        rate: (R, C) of the images that contain a region, the share in which a channel belongs to
            it.
        images: (R,) images that contain the region.
        channels: for each region the channels that are its own, best first.
    """

    rate: Tensor
    images: Tensor
    channels: list[Tensor]


def gradient_maps(
    generator: Generator, styles: Tensor, channels: Tensor, size: int = 32, block: int = 256
) -> Tensor:
    """|d picture / d s_u| of one sample, for many channels u.

    One forward-mode derivative a channel, `block` of them at a time over one common decode;
    pooled to size x size by averages, then the mean of the absolute values over the colours.

    Args:
        generator: with S.
        styles: (d,) the sample's code in S.
        channels: (c,) indices into it.
        size: side of the maps, at most.
        block: channels at a time.

    Returns (c, h, w).
    """

    def decode(code: Tensor) -> Tensor:
        return generator.decode(Codes(Space.S, code))

    def slope(tangent: Tensor) -> Tensor:
        # Forward mode: one channel in and a whole picture out.
        return torch.func.jvp(decode, (styles[None],), (tangent,))[1][0]

    maps = []
    for part in channels.split(block):
        slopes = torch.func.vmap(slope)(F.one_hot(part, len(styles)).to(styles)[:, None])
        # A pass a tangent; the decode of the block has counted one
        generator.decoded += len(part) - 1
        if max(slopes.shape[-2:]) > size:
            slopes = F.adaptive_avg_pool2d(slopes, size)
        maps.append(slopes.abs().mean(1))
    return torch.cat(maps)


def belongs(
    maps: Tensor, labels: Tensor, regions: int, discount: float = DISCOUNT
) -> tuple[Tensor, Tensor]:
    """To which region each map of one image belongs.

    A map is active on as many of its largest pixels as the region has (the percentile that
    equalises the areas); its score is n / o^discount, n the active pixels inside and o the pixels
    of the region. Each map is ranked once: a pixel of region r is active if its rank is below
    o_r. The best score wins, the first region among equals.

    Args:
        maps: (C, P) pixels of each map.
        labels: (P,) int64 regions of the pixels.
        regions: R, how many there are.
        discount: the exponent of the region's size in the score.

    Returns ((C,) int64, -1 for none; (R,) pixels of each region).
    """
    area = torch.bincount(labels, minlength=regions)
    # The second argsort turns the order of the pixels into the rank of each.
    rank = maps.argsort(dim=1, descending=True, stable=True).argsort(1)
    active = (rank < area[labels]).double()
    inside = torch.zeros(len(maps), regions, dtype=torch.float64, device=maps.device)
    inside.index_add_(1, labels, active)
    score = inside / area.clamp_min(1).double() ** discount
    best = score.max(1)
    # A channel without effect, or with a broken derivative, belongs nowhere.
    dead = (maps.amax(1) <= 0) | ~torch.isfinite(maps).all(1) | (best.values <= 0)
    return torch.where(dead, -1, best.indices), area


def select(
    counts: Tensor, images: Tensor, min_rate: float = MIN_RATE, min_margin: float = MIN_MARGIN
) -> Localised:
    """Channels whose rate exceeds min_rate, and that of every other region by min_margin.

    Args:
        counts: (R, C) images in which a channel belongs to a region.
        images: (R,) images that contain the region.
        min_rate: least share of the region's images.
        min_margin: least distance to the rate of any other region.
    """
    rate = counts.double() / images.clamp_min(1).double()[:, None]
    # Over the regions: the two highest rates of each channel.
    top = rate.topk(min(2, len(rate)), 0).values
    second = top[1] if len(top) > 1 else torch.zeros_like(top[0])
    chosen = []
    for own in rate:
        # The best of the other regions: the second best where this one is the best.
        other = torch.where(own == top[0], second, top[0])
        order = own.argsort(dim=0, descending=True, stable=True)
        distinct = (own > min_rate) & (own - other > min_margin)
        chosen.append(order[distinct[order]])
    return Localised(rate, images, chosen)


def pooled_labels(labels: Tensor, regions: int, size: int) -> Tensor:
    """Region maps (N, H, W) at most size x size, by the majority of the pixels of a cell."""
    if max(labels.shape[-2:]) <= size:
        return labels
    shares = F.one_hot(labels, regions).permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(shares, size).argmax(1)


def localise(
    generator: Generator,
    parser: Callable[[Tensor], Tensor],
    regions: int,
    styles: Tensor,
    channels: Tensor,
    size: int = 32,
    block: int = 256,
    discount: float = DISCOUNT,
    min_rate: float = MIN_RATE,
    min_margin: float = MIN_MARGIN,
) -> Localised:
    """Which of `channels` act on one region alone, over the pictures of many styles.

    Args:
        generator: with S.
        parser: pictures (N, 3, H, W) -> region labels (N, H, W) int64 below `regions`.
        regions: R, how many there are.
        styles: (N, d) codes in S.
        channels: (C,) indices into them.
        size: side of the gradient maps, at most.
        block: channels whose maps are in memory at a time.
        discount: see `belongs`.
        min_rate: see `select`.
        min_margin: see `select`.
    """
    # Counts alone are kept, so that memory does not grow with N.
    counts = torch.zeros(regions, len(channels), dtype=torch.int64, device=styles.device)
    images = torch.zeros(regions, dtype=torch.int64, device=styles.device)
    column = torch.arange(len(channels), device=styles.device)
    with torch.no_grad(), progress("gradient maps", len(styles)) as advance:
        # One sample at a time: the maps of all its channels already fill a block.
        for sample in styles:
            picture = generator.decode(Codes(Space.S, sample[None]))
            labels = pooled_labels(parser(picture), regions, size)[0].flatten()
            maps = gradient_maps(generator, sample, channels, size, block).flatten(1)
            best, area = belongs(maps, labels, regions, discount)
            hit = best >= 0
            counts[best[hit], column[hit]] += 1
            images += area > 0
            advance()
    found = select(counts, images, min_rate, min_margin)
    return Localised(found.rate, found.images, [channels[own] for own in found.channels])
