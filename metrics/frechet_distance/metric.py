"""Fréchet and kernel distance of edited images from real images, over strength and effect.

Cherepkov et al. 2021 (Fig. 7, 11, 14) plot FID over the magnitude of a weight shift, with scales
matched by eye. Here:

- The Fréchet distance is that of Gaussians (Heusel et al. 2017, eq. 6), from moments in float64. It
  is called `fid` only with the features of FID's Inception network, otherwise `frechet_distance`.
  The kernel distance (Binkowski et al. 2018, cubic polynomial, unbiased) is likewise called `kid`
  or `kernel_distance`.
- Each row has columns for network, resize, reference, n and the common effect of the ends; numbers
  that differ in one of them are never compared in a table. For the kernel distance, n is the number
  of samples that its blocks use.
- The Fréchet distance is biased upwards by O(1 / n). With equal n the bias does not cancel in a
  difference, since it depends on the covariance of the edited images (Chong & Forsyth 2020). The
  kernel distance has no bias and is therefore reported too.
- Intervals, 95 %: for the Fréchet distance a jackknife over blocks of samples with Student's t (the
  variation over other samples at this n), for the kernel distance Student's t over the blocks. The
  reference is fixed in both.
- The variant `matched` of the Fréchet distance compares with real images that have the edited
  images' share of the attribute, so it measures realism and not the edit
  (editbench.metrics.frechet_distance.matching). `unmatched` uses the reference unchanged, as in the
  paper. The kernel distance is unmatched.
- `..._perfect` is the distance of other real images, with the edited images' share, from the same
  reference: the distance of a perfect edit. Matched, it stays at the floor; unmatched, it is the
  cost of the edit alone.
- All strengths and methods use the same samples. The result's samples are the blocks' pseudo-values
  B theta - (B - 1) theta_without_block, so that differences between methods are paired; `start` is
  the block.
- Scalars: `_up` and `_down` at the ends, where the mean effect is the common one (no number if it
  was not reached); `_zero` for the unedited images (the generator's own); `_floor` for other real
  images at the same n; `_asymmetry`, up minus down, paired.
- If an edited image is not finite at some strength, there is no number for this strength, since the
  remaining images would have a different n.

This is not torchmetrics' own FID, which converts the caller's network, cannot be computed by blocks
and stops at a NaN image. torchmetrics' FID is the oracle of the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from editbench.metrics.frechet_distance.blocks import Estimate, jackknife, over_blocks
from editbench.metrics.frechet_distance.matching import SETS, ClassReference
from editbench.stats.frechet import gaussian_distance
from editbench.stats.intervals import NO_INTERVAL, Interval
from editbench.walk.metric import NAN, MetricResult, ObservationMetric, ResultBuilder, join_notes
from editbench.walk.observation import Observed
from editbench.walk.strength import not_reached

ENDS = ("up", "down", "zero", "floor", "asymmetry")
# An end gets a note if its effect over all samples differs by more from the calibrated effect.
UNLIKE = 0.1
KINDS = ("frechet_distance", "kernel_distance", "fid", "kid")
MATCHED = "matched"
UNMATCHED = "unmatched"
GROUPS = ("count", "sum", "outer")


def produced_names() -> dict[str, bool | None]:
    """Each name of the rows -> whether higher is better."""
    names: dict[str, bool | None] = {}
    for kind in KINDS:
        names[kind] = False
        names[f"{kind}_by_effect"] = False
        if kind in (KINDS[0], KINDS[2]):
            # The perfect edit, which no method can improve.
            names[f"{kind}_perfect"] = None
        for end in ENDS:
            # The distance of the generator itself, which no edit can improve.
            names[f"{kind}_{end}"] = False if end in ("up", "down") else None
    names["achieved_effect"] = None
    return names


@dataclass(frozen=True)
class End:
    """A number at one end of the walk, at 0, or of the difference of the ends.

    Attributes:
        name: of ENDS.
        value: NaN if the effect was not reached.
        interval: (low, high).
        blocks: (B,) pseudo-values, None without a value.
        note: why the number is missing or in doubt.
    """

    name: str
    value: float = NAN
    interval: Interval = NO_INTERVAL
    blocks: np.ndarray | None = None
    note: str = ""


class FrechetDistance(ObservationMetric):
    """Distances from real pictures along signed strengths.

    Rows:
        frechet_distance, kernel_distance: curves, x: strength in steps.
        ..._by_effect: curves, x: mean achieved effect in sigmas, negative towards the class of
            t < 0.
        frechet_distance_perfect: curve, x: strength in steps.
        achieved_effect: curve, x: strength in steps.
        ..._up, ..._down, ..._zero, ..._floor, ..._asymmetry: the scalars of the module's docstring.
        With the features of an Inception network the names are fid and kid.
    Variants: 'matched' (if the observation has it), 'unmatched'.
    Samples: pseudo-values of the scalars.

    States: moments by strength and block, float64, added up over samples; arrays of the reference.
    """

    name = "frechet_distance"
    observation = "frechet_distance"
    version = 2
    citation = (
        "Cherepkov, Voynov & Babenko: Navigating the GAN Parameter Space, CVPR 2021, Fig. 7, 11, "
        "14; Heusel et al.: GANs Trained by a Two Time-Scale Update Rule, NeurIPS 2017, eq. 6; "
        "Binkowski et al.: Demystifying MMD GANs, ICLR 2018"
    )
    higher_is_better = False
    produces = produced_names()
    summed = (
        "count",
        "sum",
        "outer",
        "effect",
        "effect_square",
        "label",
        "broken",
        "kernel",
        "kernel_whole",
    )
    shared = (
        "strength",
        "reference_count",
        "reference_sum",
        "reference_outer",
        "floor_count",
        "floor_sum",
        "floor_outer",
        *(f"{name}{kind}_{part}" for name in SETS for kind in ("", "_edited") for part in GROUPS),
    )

    def update(self, found: Observed) -> None:  # type: ignore[override]
        if not found.reason:
            # A block of the kernel distance has a value if it is complete, otherwise NaN.
            kernel = np.asarray(found.arrays["kernel"], np.float64)
            whole = np.isfinite(kernel)
            arrays = found.arrays | {
                "kernel": np.where(whole, kernel, 0.0),
                "kernel_whole": whole.astype(np.float64),
            }
            found = Observed(arrays, found.meta, found.reason)
        super().update(found)

    def measure(self, arrays: dict[str, np.ndarray], meta: dict) -> MetricResult:
        frechet, kernel = KINDS[:2]
        if meta["inception"]:
            frechet, kernel = KINDS[2:]
        whole = arrays["broken"] == 0
        by_block = np.where(arrays["kernel_whole"] > 0, arrays["kernel"], NAN)
        n = int(meta["n"])
        out = ResultBuilder()
        effect, spread = mean_effect(arrays, n)
        for t, mean, half in zip(arrays["strength"], effect, spread):
            out.add("achieved_effect", mean, n, (mean - half, mean + half), x=float(t))
        sets = class_references(arrays)
        # Old records, and those without matching, have no classes.
        variants = [MATCHED, UNMATCHED] if meta.get("matched") else [UNMATCHED]
        for variant in variants:
            estimate = jackknife(arrays, whole, sets[0] if variant == MATCHED else None)
            notes = [""] * len(whole)
            if variant == MATCHED:
                label = arrays["label"].sum(1)
                notes = [
                    sets[0].doubt(each, meta["every_class"]) if each.any() else "" for each in label
                ]
            key = compared_by(meta, n) | {"variant": variant}
            self._add_all(out, frechet, estimate, arrays, meta, key, notes)
            if len(sets) > 1:
                perfect = perfect_distances(arrays, sets, variant == MATCHED)
                for t, value in zip(arrays["strength"], perfect):
                    out.add(f"{frechet}_perfect", value, n, x=float(t), **key)
        estimate = over_blocks(by_block, whole)
        notes = [""] * len(whole)
        key = compared_by(meta, int(meta["kernel_n"])) | {"variant": UNMATCHED}
        self._add_all(out, kernel, estimate, arrays, meta, key, notes)
        return out.result()

    def _add_all(
        self,
        out: ResultBuilder,
        name: str,
        estimate: Estimate,
        arrays: dict[str, np.ndarray],
        meta: dict,
        key: dict[str, Any],
        notes: list[str],
    ) -> None:
        """Add the curves and the scalars of one distance.

        Args:
            out: takes the rows.
            name: of the distance.
            estimate: its values.
            arrays: of the observation.
            meta: facts of the observation.
            key: fields that numbers must share to be compared, see `compared_by`, and the variant.
            notes: (T,) on the reference of each strength.
        """
        used = int(key["n"])
        n = int(meta["n"])
        effect, _ = mean_effect(arrays, n)
        for place, t in enumerate(arrays["strength"]):
            broken = int(arrays["broken"][place])
            lost = f"{broken} of {n} edited pictures are not finite" if broken else ""
            note = join_notes(lost, notes[place])
            value = estimate.value[place]
            interval = estimate.interval(place)
            out.add(name, value, used, interval, note, x=float(t), **key)
            out.add(f"{name}_by_effect", value, used, interval, note, x=float(effect[place]), **key)
        for end in ends_of(estimate, arrays, meta, notes):
            metric = f"{name}_{end.name}"
            out.add(metric, end.value, used, end.interval, end.note, **key)
            if end.blocks is not None:
                out.add_samples(metric, np.arange(len(end.blocks)), end.blocks, **key)
        if np.isfinite(estimate.floor):
            out.add(f"{name}_floor", estimate.floor, used, **key)


def compared_by(meta: dict, n: int) -> dict[str, Any]:
    """The fields that numbers must share before they are compared.

    Args:
        meta: facts of the observation.
        n: samples behind the number.
    """
    # The first word names the kind of resizing; the sizes follow.
    resize = str(meta["resize"]).split(",")[0].split(" inside")[0]
    return {
        "network": meta["network"],
        "resize": resize,
        "reference": meta["reference"],
        "n": float(n),
        "effect": float(meta["effect"]),
    }


def class_references(arrays: dict[str, np.ndarray]) -> list[ClassReference]:
    """The sets of real images by class in the observation, at most two."""
    return [ClassReference(arrays, name) for name in SETS if f"{name}_count" in arrays]


def perfect_distances(
    arrays: dict[str, np.ndarray], sets: list[ClassReference], matched: bool
) -> np.ndarray:
    """Distance (T,) of other real images, with the edited images' share, from the reference.

    Args:
        arrays: what the observation left.
        sets: the reference and the other images.
        matched: whether the reference has this share too; otherwise it is unchanged.
    """
    out = np.full(len(arrays["strength"]), NAN)
    for t, label in enumerate(arrays["label"].sum(1)):
        if not label.any():
            continue
        other, other_spread, _ = sets[1].at(label)
        own, own_spread, _ = sets[0].at(label if matched else sets[0].natural)
        if np.isfinite(other).all() and np.isfinite(own).all():
            out[t] = gaussian_distance(other, other_spread, own, own_spread)
    return out


def mean_effect(arrays: dict[str, np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean achieved effect at each strength, and its precision.

    Images that are not finite count as no effect.

    Args:
        arrays: of the observation: effect and effect_square (T,) are sums over the samples, of
            sigmas and of their squares.
        n: number of samples.

    Returns:
        The mean (T,) and the half-width (T,) of its 95 % interval, both in sigmas.
    """
    mean = arrays["effect"] / n
    # If all effects are equal, rounding may make the difference negative.
    variance = np.maximum(arrays["effect_square"] / n - mean**2, 0.0)
    return mean, 1.96 * np.sqrt(variance / n)


def ends_of(
    estimate: Estimate, arrays: dict[str, np.ndarray], meta: dict, notes: list[str]
) -> list[End]:
    """Numbers at the ends, at 0, and of the difference of the ends.

    Args:
        estimate: at every strength.
        arrays: what the observation left.
        meta: facts of the observation.
        notes: (T,) on the reference of each strength.
    """
    strength = arrays["strength"]
    up = len(strength) - 1
    down = 0
    missed = {side: not_reached(side, meta) for side in ("up", "down")}
    out = []
    doubts = []
    for side, place in (("up", up), ("down", down)):
        if missed[side]:
            out.append(End(side, note=missed[side]))
            continue
        interval = estimate.interval(place)
        note = join_notes(unlike_effect(place, arrays, meta), notes[place])
        out.append(End(side, estimate.value[place], interval, estimate.blocks[place], note))
        if note:
            doubts.append(f"{side}: {note}")
    zero = int(np.flatnonzero(strength == 0)[0])
    out.append(
        End(
            "zero",
            estimate.value[zero],
            estimate.interval(zero),
            estimate.blocks[zero],
            notes[zero],
        )
    )
    note = join_notes(missed["up"], missed["down"])
    if note:
        out.append(End("asymmetry", note=note))
    else:
        out.append(
            End(
                "asymmetry",
                estimate.value[up] - estimate.value[down],
                estimate.difference(up, down),
                estimate.blocks[up] - estimate.blocks[down],
                # The doubts about both numbers apply to their difference.
                join_notes(*doubts),
            )
        )
    return out


def unlike_effect(place: int, arrays: dict[str, np.ndarray], meta: dict) -> str:
    """A note if the effect at an end differs from the common one by more than UNLIKE, or ''.

    The strengths are calibrated on the first samples only, so the mean over all of them may differ.

    Args:
        place: of the end among the strengths.
        arrays: what the observation left.
        meta: facts of the observation: `n` samples, and `effect`, the calibrated one in sigmas.
    """
    # The effect at the lower end is negative, while the calibrated one is a size.
    mean = abs(arrays["effect"][place]) / int(meta["n"])
    if abs(mean / meta["effect"] - 1) <= UNLIKE:
        return ""
    return (
        f"over all {meta['n']} the mean effect is {mean:.2g}: raise "
        "observation.frechet_distance.samples"
    )
