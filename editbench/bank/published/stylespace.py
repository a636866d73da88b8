"""The published overlap of StyleSpace's channels with regions (Wu et al., CVPR 2021; `semantic_top_32`).

A pickle of one (C_l, 11) float array a style layer: row c holds, for each of the 11 regions, the share of the images
showing it in which channel c belongs to it. Rows of ToRGB layers are zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from editbench.bank.published.values import as_array
from editbench.base.errors import BadFile
from editbench.networks.pickles import read_pickle

REGIONS = (
    "others",
    "background",
    "skin",
    "eyebrow",
    "eye",
    "ear",
    "nose",
    "mouth",
    "neck",
    "clothes",
    "hair",
)


@dataclass(frozen=True)
class RegionChannels:
    """channels: region -> (layer, channel) pairs that are its own, best first; rates: the rate of each, alike."""

    channels: dict[str, list[tuple[int, int]]]
    rates: dict[str, list[float]]

    def counts(self) -> dict[str, int]:
        return {region: len(found) for region, found in self.channels.items()}


def read_semantic(path: Path | str) -> list[np.ndarray]:
    """The rates (C_l, 11) of each layer, float64 in [0, 1]; BadFile for anything else. Nothing in the pickle is run."""
    content = read_pickle(path)
    if not isinstance(content, (list, tuple)) or not content:
        raise BadFile(
            f"{path}: holds {type(content).__name__}, expected a list of arrays, one a style layer, of shape "
            f"(channels, {len(REGIONS)})"
        )
    layers = [as_array(layer, path).astype(np.float64) for layer in content]
    for i, layer in enumerate(layers):
        if (
            layer.ndim != 2
            or layer.shape[1] != len(REGIONS)
            or layer.min(initial=0) < 0
            or layer.max(initial=0) > 1
        ):
            raise BadFile(
                f"{path}: layer {i} has shape {layer.shape} and values from {layer.min(initial=0):.3g} to "
                f"{layer.max(initial=0):.3g}, expected shares in [0, 1] of shape (channels, {len(REGIONS)})"
            )
    return layers


def select_channels(
    layers: list[np.ndarray], rate: float = 0.5, margin: float = 0.25
) -> RegionChannels:
    """The published rule: a channel is a region's own if its rate is above `rate` and above that of every other region
    by more than `margin`; sorted by rate."""
    rates = np.concatenate(layers)
    where = [
        (layer, channel) for layer, values in enumerate(layers) for channel in range(len(values))
    ]
    others = np.stack(
        [np.delete(rates, region, 1).max(1, initial=0) for region in range(len(REGIONS))], 1
    )
    own = (rates > rate) & (rates - others > margin)
    channels, found = {}, {}
    for k, region in enumerate(REGIONS):
        order = np.argsort(-rates[:, k], kind="stable")
        chosen = order[own[order, k]]
        channels[region] = [where[i] for i in chosen]
        found[region] = rates[chosen, k].tolist()
    return RegionChannels(channels, found)
