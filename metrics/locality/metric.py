"""How local an edit is: numbers of the heatmap of its pixel differences (Cherepkov et al. 2021, Fig. 12 and 13).

The paper shows H(p) = E_{z,t} |G_edit(z, t)[p] - G(z)[p]|^2 as pictures; the numbers are this project's:

- `locality_top`: share of the energy in the 10 % of pixels that have most of it; 0.1 of an edit that acts everywhere.
- `locality_entropy`: entropy of H at sum one, over ln(pixels); 1 of an edit that acts everywhere, 0 of one pixel.
- `locality_inside`: share of the energy in pixels that show the attribute's own regions in the unedited picture;
  `locality_inside_ratio`: over the share of the pixels that do, 1 where there is no localisation. The regions of an
  attribute are declared in conf/metric/locality.yaml.
- `locality_touched`, `locality_touched_ratio`: the same of pixels that show these regions before or after the edit.
  Glasses that are put on a face are in no region of the unedited picture.
- `locality_region`, `locality_region_ratio`: of every region of the unedited picture; x: its place in the observation's list.
- `locality_change`: root mean square difference of pixel values.

Intervals: bootstrap over blocks of z. Samples: pseudo-values of leaving out one block, paired between methods since all
have the same z; `start` is the block. Energies are means over the same grid of strengths, from one side's end to the
other's; where a side does not reach the common effect the rows say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from editbench.base.errors import EditbenchError, UnknownName
from editbench.stats.intervals import percentiles, resampled_sums
from editbench.walk.metric import ROW_COLUMNS, MetricResult, ObservationMetric, no_samples, row
from editbench.walk.observation import Observed

TOP = 0.1
CHUNK = 8_000_000  # pixels of maps held at once
NAN = float("nan")
PLAIN = ("locality_top", "locality_entropy", "locality_change")
OWN = ("locality_inside", "locality_inside_ratio", "locality_touched", "locality_touched_ratio")


class Locality(ObservationMetric):
    """The rows above; n counts samples.

    Args:
        regions: attribute -> its own regions, by the parser's names; 'all' of one that changes the whole picture, for
            which no share is given.
        draws: bootstrap draws.
    """

    name = "locality"
    version = 1
    citation = "Cherepkov, Voynov & Babenko: Navigating the GAN Parameter Space, CVPR 2021, Fig. 12"
    observation = "locality"
    produces = {
        "locality_top": True,
        "locality_entropy": False,
        "locality_change": None,
        **dict.fromkeys(OWN, True),
        "locality_region": None,
        "locality_region_ratio": None,
    }

    def __init__(
        self, regions: Mapping[str, Sequence[str] | str] | None = None, draws: int = 1000
    ) -> None:
        self.regions = {
            name: own if isinstance(own, str) else tuple(own)
            for name, own in (regions or {}).items()
        }
        for name, given in self.regions.items():
            if isinstance(given, str) and given != "all":
                raise EditbenchError(
                    f"metric.locality.regions.{name}={given}: give a list of regions, or all"
                )
        if draws < 1:
            raise EditbenchError(f"metric.locality.draws={draws} must be at least 1")
        self.draws = int(draws)

    def compute(self, stats: Observed) -> MetricResult:
        arrays, meta = stats.arrays, stats.meta
        parts, why = self._parts(meta)
        blocks, channels = len(arrays["count"]), len(arrays["mean"])
        energy = np.asarray(arrays["energy"], np.float64).reshape(blocks, -1)
        table = [np.asarray(arrays["count"], np.float64)]
        for _, _, mask in parts:
            table += [
                np.asarray(arrays[of], np.float64)[:, mask].sum(1)
                for of in ("region_energy", "region_pixels")
            ]
        sums, size = np.stack(table, 1), max(1, CHUNK // energy.shape[1])

        def values(weights: np.ndarray) -> np.ndarray:
            """Weights of the blocks (draws, B) -> (draws, values)."""
            groups = [weights[first : first + size] for first in range(0, len(weights), size)]
            return np.concatenate(
                [numbers(part @ energy, part @ sums, channels) for part in groups]
            )

        whole = values(np.ones((1, blocks)))[0]
        low, high = pseudo = np.full((2, len(whole)), NAN)
        if blocks > 1:
            low, high = percentiles(values(resampled_sums(np.eye(blocks), self.draws)))
            pseudo = blocks * whole - (blocks - 1) * values(1 - np.eye(blocks))
        names = [(name, NAN) for name in PLAIN]
        names += [(name + end, x) for name, x, _ in parts for end in ("", "_ratio")]
        note, n = remarks(arrays, meta), int(meta["n"])
        rows, samples = [], [no_samples()]
        for k, (name, x) in enumerate(names):
            rows.append(row(name, float(whole[k]), n, float(low[k]), float(high[k]), x, note))
            if np.isnan(x) and np.isfinite(pseudo[:, k]).all():
                samples.append(
                    pd.DataFrame(
                        {"metric": name, "start": np.arange(len(pseudo)), "value": pseudo[:, k]}
                    )
                )
        rows += [row(name, NAN, n, note=why) for name in OWN if why]
        return MetricResult(
            pd.DataFrame(rows, columns=list(ROW_COLUMNS)), pd.concat(samples, ignore_index=True)
        )

    def _parts(self, meta: dict) -> tuple[list[tuple[str, float, np.ndarray]], str]:
        """(name, x, mask (R, R) over regions before and after) of every share; why the attribute has none of its own.

        Raises UnknownName for a declared region that the parser does not have.
        """
        names, attribute = list(meta["regions"]), str(meta["attribute"])
        size = len(names)
        parts = []
        for k in range(size):
            mask = np.zeros((size, size), bool)
            mask[k] = True
            parts.append(("locality_region", float(k), mask))
        own = self.regions.get(attribute)
        if not names:
            return [], "no regions: the observation had no parser"
        if own is None:
            return parts, f"no regions are declared for '{attribute}': metric.locality.regions"
        if own == "all":
            return parts, f"'{attribute}' changes the whole picture: no region is its own"
        for name in own:
            if name not in names:
                raise UnknownName(f"region of metric.locality.regions.{attribute}", name, names)
        mine = np.isin(names, list(own))
        before = np.repeat(mine[:, None], size, 1)
        return [
            ("locality_inside", NAN, before),
            ("locality_touched", NAN, before | mine),
            *parts,
        ], ""


def numbers(heat: np.ndarray, sums: np.ndarray, channels: int) -> np.ndarray:
    """Summed maps (draws, pixels) and sums (draws, 1 + 2 parts): count, then energy and pixels of each part -> (draws,
    values): top share, entropy, root mean square change, then share and ratio of each part."""
    total = heat.sum(1)
    pixels = heat.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.sqrt(total / (sums[:, 0] * pixels * channels))
        share = sums[:, 1::2] / total[:, None]
        ratio = share / (sums[:, 2::2] / (sums[:, :1] * pixels))
    pairs = np.stack([share, ratio], 2).reshape(len(heat), -1)
    return np.concatenate([np.stack([top_share(heat), entropy(heat), change], 1), pairs], 1)


def top_share(heat: np.ndarray, top: float = TOP) -> np.ndarray:
    """Share of the energy in the `top` share of pixels with most of it: (draws, pixels) -> (draws,). The last pixel
    counts in part, so that an even map has exactly `top`; NaN of a map without energy."""
    ranked = -np.sort(-heat, axis=1)
    whole = int(top * heat.shape[1])
    part = top * heat.shape[1] - whole
    with np.errstate(invalid="ignore", divide="ignore"):
        return (ranked[:, :whole].sum(1) + part * ranked[:, whole]) / ranked.sum(1)


def entropy(heat: np.ndarray) -> np.ndarray:
    """Entropy of each map at sum one, over the logarithm of its pixels: (draws, pixels) -> (draws,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = heat / heat.sum(1, keepdims=True)
        return -np.where(share == 0, 0.0, share * np.log(share)).sum(1) / np.log(heat.shape[1])


def remarks(arrays: dict[str, np.ndarray], meta: dict) -> str:
    """What keeps the numbers from being compared, '' where nothing does."""
    out = []
    for side in ("down", "up"):
        reach, wanted = meta[side], meta["effect"]
        if not reach["reached"]:
            most = "" if reach["effect"] > wanted else "at most "
            out.append(
                f"an effect of {wanted:g} sigma towards '{meta['classes'][side == 'up']}' was not reached: "
                f"{most}{reach['effect']:.2g}, at {abs(reach['strength']):.3g} steps"
            )
    if lost := int(arrays["broken"].sum()):
        out.append(f"{lost} edited pictures are not finite and were left out")
    return "; ".join(out)
