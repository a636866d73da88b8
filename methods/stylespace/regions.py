"""Channels of StyleSpace that act on one region of the image, found by their gradient maps.

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

DISCOUNT = 2.0  # exponent of the region's size in the score
MIN_RATE = 0.5
MIN_MARGIN = 0.25


@dataclass(frozen=True)
class Localised:
    """Which channels act on which region.

    Args:
        rate: (R, C) share of the images containing a region in which a channel belongs to it.
        images: (R,) number of images that contain the region.
        channels: for each region the channels that belong to it, best first.
    """

    rate: Tensor
    images: Tensor
    channels: list[Tensor]


def gradient_maps(
    generator: Generator, styles: Tensor, channels: Tensor, size: int = 32, block: int = 256
) -> Tensor:
    """|d picture / d s_u| of one sample, for many channels u.

    One forward-mode derivative per channel, with `block` derivatives sharing one decode. They are
    average-pooled to size x size, and the absolute values are averaged over the colours.

    Args:
        generator: with S.
        styles: (d,) the sample's code in S.
        channels: (c,) indices into it.
        size: largest side of the maps.
        block: number of channels at a time.

    Returns:
        (c, h, w).
    """

    def decode(code: Tensor) -> Tensor:
        return generator.decode(Codes(Space.S, code))

    def slope(tangent: Tensor) -> Tensor:
        # Forward mode is cheaper, with one channel as input and a whole image as output.
        return torch.func.jvp(decode, (styles[None],), (tangent,))[1][0]

    maps = []
    for part in channels.split(block):
        slopes = torch.func.vmap(slope)(F.one_hot(part, len(styles)).to(styles)[:, None])
        # One pass per tangent; the decode of the block has already counted one.
        generator.decoded += len(part) - 1
        if max(slopes.shape[-2:]) > size:
            slopes = F.adaptive_avg_pool2d(slopes, size)
        maps.append(slopes.abs().mean(1))
    return torch.cat(maps)


def belongs(
    maps: Tensor, labels: Tensor, regions: int, discount: float = DISCOUNT
) -> tuple[Tensor, Tensor]:
    """Assign each gradient map of one image to a region.

    For a region of o pixels, the o largest pixels of a map are active (the percentile that
    equalises the areas). The score is n / o^discount, with n the number of active pixels inside the
    region. Each map is ranked once: a pixel of region r is active if its rank is below o_r. The
    best score wins; ties go to the first region.

    Args:
        maps: (C, P) pixels of each map.
        labels: (P,) int64 regions of the pixels.
        regions: R, the number of regions.
        discount: the exponent of the region's size in the score.

    Returns:
        The region of each channel, (C,) int64, -1 for none; and the pixels of each region, (R,).
    """
    area = torch.bincount(labels, minlength=regions)
    # The second argsort turns the order of the pixels into ranks.
    rank = maps.argsort(dim=1, descending=True, stable=True).argsort(1)
    active = (rank < area[labels]).double()
    inside = torch.zeros(len(maps), regions, dtype=torch.float64, device=maps.device)
    inside.index_add_(1, labels, active)
    score = inside / area.clamp_min(1).double() ** discount
    best = score.max(1)
    # A channel without effect, or with a non-finite derivative, belongs to no region.
    dead = (maps.amax(1) <= 0) | ~torch.isfinite(maps).all(1) | (best.values <= 0)
    return torch.where(dead, -1, best.indices), area


def select(
    counts: Tensor, images: Tensor, min_rate: float = MIN_RATE, min_margin: float = MIN_MARGIN
) -> Localised:
    """Channels of each region: the rate exceeds min_rate, and every other rate by min_margin.

    Args:
        counts: (R, C) images in which a channel belongs to a region.
        images: (R,) images that contain the region.
        min_rate: minimum share of the region's images.
        min_margin: minimum distance to the rate in any other region.
    """
    rate = counts.double() / images.clamp_min(1).double()[:, None]
    # The two highest rates of each channel over the regions.
    top = rate.topk(min(2, len(rate)), 0).values
    second = top[1] if len(top) > 1 else torch.zeros_like(top[0])
    chosen = []
    for own in rate:
        # The best of the other regions is the second best overall if this region is the best.
        other = torch.where(own == top[0], second, top[0])
        order = own.argsort(dim=0, descending=True, stable=True)
        distinct = (own > min_rate) & (own - other > min_margin)
        chosen.append(order[distinct[order]])
    return Localised(rate, images, chosen)


def pooled_labels(labels: Tensor, regions: int, size: int) -> Tensor:
    """Reduce region maps to a grid of cells, by the majority of pixels per cell.

    Args:
        labels: (N, H, W) int64 below `regions`.
        regions: R, the number of regions.
        size: cells along a side. Maps that are no larger remain unchanged.

    Returns:
        (N, h, w) int64.
    """
    if max(labels.shape[-2:]) <= size:
        return labels
    # Labels are names of regions and have no mean, so the shares of each region are averaged.
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
    """Find which of `channels` act on only one region, over the images of many styles.

    Args:
        generator: with S.
        parser: images (N, 3, H, W) -> region labels (N, H, W) int64 below `regions`.
        regions: R, the number of regions.
        styles: (N, d) codes in S.
        channels: (C,) indices into them.
        size: largest side of the gradient maps.
        block: number of channels whose maps are in memory at a time.
        discount: see `belongs`.
        min_rate: see `select`.
        min_margin: see `select`.
    """
    # Only counts are kept, so memory does not grow with N.
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
