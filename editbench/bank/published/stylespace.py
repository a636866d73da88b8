"""The published overlap of StyleSpace's channels with regions (Wu et al., CVPR 2021; `semantic_top_32`).

The file is a pickle with one (C_l, 11) float array per style layer. Row c holds a share for each of
the 11 regions: of the images that show the region, those in which channel c belongs to it. Rows of
ToRGB layers are zero.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from editbench.bank.published.arrays import as_array
from editbench.base.errors import BadFile
from editbench.networks.pickles import read_pickle

# In the order of the columns of the published file.
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
RATE = 0.5  # of images that show the region
MARGIN = 0.25  # to the rate in every other region


def read_semantic(path: Path | str) -> list[np.ndarray]:
    """Read the rates of all layers. Nothing in the pickle is run.

    Args:
        path: of the pickle.

    Returns:
        (C_l, 11) float64 in [0, 1] for each style layer.

    Raises:
        BadFile: the file is damaged or hostile, or holds anything else.
    """
    content = read_pickle(path)
    if not isinstance(content, (list, tuple)) or not content:
        raise BadFile(
            f"{path}: holds {type(content).__name__}, expected a list of arrays, one per style "
            f"layer, of shape (channels, {len(REGIONS)})"
        )
    layers = []
    for i, part in enumerate(content):
        layer = as_array(part, path).astype(np.float64)
        # `initial`, because NumPy has no minimum of an empty array; 0 is a valid share.
        least = layer.min(initial=0)
        most = layer.max(initial=0)
        fits = layer.ndim == 2 and layer.shape[1] == len(REGIONS)
        if not fits or least < 0 or most > 1:
            raise BadFile(
                f"{path}: layer {i} has shape {layer.shape} and values from {least:.3g} to "
                f"{most:.3g}, expected shares in [0, 1] of shape (channels, {len(REGIONS)})"
            )
        layers.append(layer)
    return layers


def select_channels(layers: list[np.ndarray]) -> dict[str, list[tuple[int, int]]]:
    """Select the style channels that act on each region by the published rule.

    A channel belongs to a region if its rate there is above RATE, and above its rate in every other
    region by more than MARGIN.

    Args:
        layers: (C_l, 11) rates, see `read_semantic`.

    Returns:
        Region -> (layer, channel) pairs, the highest rate first.
    """
    # All layers in one table; `places` maps a row back to its layer and channel.
    rates = np.concatenate(layers)
    places: list[tuple[int, int]] = []
    for layer, values in enumerate(layers):
        for channel in range(len(values)):
            places.append((layer, channel))
    found = {}
    for k, region in enumerate(REGIONS):
        others = np.delete(rates, k, 1).max(1, initial=0)
        belongs = (rates[:, k] > RATE) & (rates[:, k] - others > MARGIN)
        # A stable sort keeps channels of equal rate in the order of the layers.
        order = np.argsort(-rates[:, k], kind="stable")
        found[region] = [places[i] for i in order[belongs[order]]]
    return found
