"""How local an edit is: numbers of the map of its pixel differences.

Cherepkov et al. 2021 (Fig. 12 and 13) show H(p) = E_{z,t} |G_edit(z, t)[p] - G(z)[p]|^2 as images;
the numbers are this project's:

- `locality_top`: share of the energy in the 10 % of pixels with the most energy; 0.1 for an edit
  that acts everywhere.
- `locality_entropy`: entropy of H normalised to sum 1, divided by ln(pixels); 1 for an edit that
  acts everywhere, 0 for an edit of a single pixel.
- `locality_inside`: share of the energy in pixels that show the attribute's own regions in the
  unedited image; `locality_inside_ratio`: this share divided by the share of these pixels, 1
  without localisation. The regions of an attribute are declared in conf/metric/locality.yaml.
- `locality_touched`, `locality_touched_ratio`: the same for pixels that show these regions before
  or after the edit. Glasses that an edit adds are in no region of the unedited image.
- `locality_region`, `locality_region_ratio`: the same for every region of the unedited image; x is
  the region's position in the observation's list.
- `locality_change`: root mean square difference of pixel values.

Intervals: jackknife over blocks of z with Student's t. A bootstrap of blocks would be wrong for
`locality_top`: each draw ranks the pixels anew, so its share is too large in most draws. Samples:
the jackknife's pseudo-values of leaving out one block, paired between methods since all have the
same z; `start` is the block. Energies are means over the same grid of strengths, from the end of
one side to that of the other; if a side does not reach the common effect, the rows say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError, UnknownName
from editbench.stats.intervals import block_interval
from editbench.walk.metric import NAN, MetricResult, ObservationMetric, ResultBuilder
from editbench.walk.observation import Observation, ObservationContext, Observed
from editbench.walk.strength import not_reached
from editbench.worlds import faces

TOP = 0.1
PLAIN = ("locality_top", "locality_entropy", "locality_change")
OWN = ("locality_inside", "locality_inside_ratio", "locality_touched", "locality_touched_ratio")


@dataclass(frozen=True)
class Part:
    """A part of the image whose share of the energy is computed.

    Attributes:
        name: of the row.
        x: position of a region in the observation's list, or NaN.
        mask: (R, R) bool, indexed by a pixel's region before and after the edit.
    """

    name: str
    x: float
    mask: np.ndarray


class Locality(ObservationMetric):
    """The rows listed in the module's docstring; count is the number of samples.

    Args:
        regions: attribute -> its own regions, by the parser's names; 'all' for an attribute that
            changes the whole image, for which no share is given.
    """

    name = "locality"
    version = 1
    citation = "Cherepkov, Voynov & Babenko: Navigating the GAN Parameter Space, CVPR 2021, Fig. 12"
    observation = "locality"
    higher_is_better = True
    produces = {
        "locality_top": True,
        "locality_entropy": False,
        "locality_change": None,
        **dict.fromkeys(OWN, True),
        "locality_region": None,
        "locality_region_ratio": None,
    }
    summed = ("count", "broken", "energy", "region_energy", "region_pixels")

    def __init__(self, regions: Mapping[str, Sequence[str] | str] | None = None) -> None:
        super().__init__()
        self.regions: dict[str, str | tuple[str, ...]] = {}
        for name, own in (regions or {}).items():
            if isinstance(own, str) and own != "all":
                raise EditbenchError(
                    f"metric.locality.regions.{name}={own}: give a list of regions, or all"
                )
            self.regions[name] = own if isinstance(own, str) else tuple(own)
        self.add_facts("channels")

    def check(self, attributes: Attributes, attribute: str) -> None:
        faces.check_regions("metric.locality.regions", self.regions, attributes)

    def check_observation(self, observation: Observation, context: ObservationContext) -> None:
        """Reject a region of the edited attribute that the observation's parser lacks."""
        # Imported here, so that recomputing the metric does not load a generator.
        from editbench.metrics.locality.observation import LocalityObservation

        if isinstance(observation, LocalityObservation):
            self._own(context.attribute, observation.region_names(context))

    def update(self, found: Observed) -> None:  # type: ignore[override]
        super().update(found)
        if not found.reason:
            self.keep_fact("channels", len(found.arrays["mean"]))

    def measure(self, arrays: dict[str, np.ndarray], meta: dict) -> MetricResult:
        parts, why = self._parts(meta)
        blocks = len(arrays["count"])
        channels = self.fact("channels")
        energy = arrays["energy"].reshape(blocks, -1)
        table = [arrays["count"]]
        for part in parts:
            table.append(arrays["region_energy"][:, part.mask].sum(1))
            table.append(arrays["region_pixels"][:, part.mask].sum(1))
        sums = np.stack(table, 1)

        def values(used: np.ndarray) -> np.ndarray:
            """The numbers of some blocks: (B,) bool -> (values,)."""
            chosen = used.astype(np.float64)[None]
            return numbers(chosen @ energy, chosen @ sums, channels)[0]

        everything = np.ones(blocks, bool)
        whole = values(everything)
        pseudo = np.full((1, len(whole)), NAN)
        if blocks > 1:
            pseudo = np.empty((blocks, len(whole)))
            # One by one, since the maps of large images fill the memory.
            for b in range(blocks):
                used = everything.copy()
                used[b] = False
                pseudo[b] = blocks * whole - (blocks - 1) * values(used)

        names = [(name, NAN) for name in PLAIN]
        for part in parts:
            names += [(part.name, part.x), (f"{part.name}_ratio", part.x)]
        note = remarks(arrays, meta)
        n = int(meta["n"])
        out = ResultBuilder()
        for k, (name, x) in enumerate(names):
            interval = block_interval(float(whole[k]), pseudo[:, k])
            # Student's t is symmetric, so the interval could exceed the possible range.
            low, high = np.clip(interval, 0.0, np.inf if unbounded(name) else 1.0)
            out.add(name, whole[k], n, (low, high), note, x=x)
            # A region may be absent from all images of a block; then there is nothing to pair.
            if np.isnan(x) and np.isfinite(pseudo[:, k]).all():
                out.add_samples(name, np.arange(len(pseudo)), pseudo[:, k])
        if why:
            for name in OWN:
                out.add(name, NAN, n, note=why)
        return out.result()

    def _own(self, attribute: str, names: Sequence[str]) -> str | tuple[str, ...] | None:
        """The regions declared for an attribute, 'all', or None.

        Args:
            attribute: the edited attribute.
            names: the existing regions; if empty, no name is rejected.

        Raises:
            UnknownName: there is no such region.
        """
        own = self.regions.get(attribute)
        if names and isinstance(own, tuple):
            for name in own:
                if name not in names:
                    raise UnknownName(f"region of metric.locality.regions.{attribute}", name, names)
        return own

    def _parts(self, meta: dict) -> tuple[list[Part], str]:
        """Every part whose share is computed, and why the attribute has no own part, or ''.

        Raises:
            UnknownName: the parser lacks a declared region.
        """
        names = list(meta["regions"])
        attribute = str(meta["attribute"])
        size = len(names)
        parts = []
        for k in range(size):
            mask = np.zeros((size, size), bool)
            mask[k] = True
            parts.append(Part("locality_region", float(k), mask))
        if not names:
            return [], "no regions: the observation had no parser"
        own = self._own(attribute, names)
        if own is None:
            return parts, f"no regions are declared for '{attribute}': metric.locality.regions"
        if isinstance(own, str):
            return parts, f"'{attribute}' changes the whole picture: no region is its own"
        mine = np.isin(names, list(own))
        before = np.repeat(mine[:, None], size, 1)
        inside = Part("locality_inside", NAN, before)
        touched = Part("locality_touched", NAN, before | mine)
        return [inside, touched, *parts], ""


def unbounded(name: str) -> bool:
    """Whether a row is not a share, which is at most 1."""
    return name == "locality_change" or name.endswith("_ratio")


def numbers(heat: np.ndarray, sums: np.ndarray, channels: int) -> np.ndarray:
    """All numbers of each of several sets of blocks.

    Args:
        heat: (m, pixels) summed maps.
        sums: (m, 1 + 2 parts): count, then energy and pixels of each part.
        channels: of a picture.

    Returns:
        (m, values): top share, entropy, root mean square change, then share and ratio of each
        part.
    """
    total = heat.sum(1)
    pixels = heat.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.sqrt(total / (sums[:, 0] * pixels * channels))
        share = sums[:, 1::2] / total[:, None]
        ratio = share / (sums[:, 2::2] / (sums[:, :1] * pixels))
    pairs = np.stack([share, ratio], 2).reshape(len(heat), -1)
    return np.concatenate([np.stack([top_share(heat), entropy(heat), change], 1), pairs], 1)


def top_share(heat: np.ndarray) -> np.ndarray:
    """Share of the energy in the share TOP of the pixels with the most energy.

    (m, pixels) -> (m,), NaN for a map without energy. The last pixel counts partially, so
    that a uniform map has exactly TOP.
    """
    ranked = -np.sort(-heat, axis=1)
    whole = int(TOP * heat.shape[1])
    part = TOP * heat.shape[1] - whole
    with np.errstate(invalid="ignore", divide="ignore"):
        return (ranked[:, :whole].sum(1) + part * ranked[:, whole]) / ranked.sum(1)


def entropy(heat: np.ndarray) -> np.ndarray:
    """Entropy of each map normalised to sum 1, divided by the logarithm of the number of pixels.

    (m, pixels) -> (m,), from 0 (a single pixel) to 1 (uniform).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = heat / heat.sum(1, keepdims=True)
        return -np.where(share == 0, 0.0, share * np.log(share)).sum(1) / np.log(heat.shape[1])


def remarks(arrays: dict[str, np.ndarray], meta: dict) -> str:
    """Why the numbers cannot be compared, or ''.

    Args:
        arrays: of the observation; `broken` counts the images with NaN or infinity.
        meta: facts of the observation, with the Reach of both sides.
    """
    out = [why for side in ("down", "up") if (why := not_reached(side, meta))]
    if lost := int(arrays["broken"].sum()):
        out.append(f"{lost} edited pictures are not finite and were left out")
    return "; ".join(out)
