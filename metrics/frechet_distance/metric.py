"""Fréchet and kernel distance of edited pictures from real ones, over signed strength and over achieved effect.

Cherepkov et al. 2021 (Fig. 7, 11, 14) plot FID over the magnitude of a weight shift, with scales matched by eye. Here:

- The distance is that of Gaussians (Heusel et al. 2017, eq. 6), from moments in float64. It is called `fid` only in
  the features of FID's Inception network, otherwise `frechet_distance`; the kernel distance (Binkowski et al. 2018,
  cubic polynomial, unbiased) likewise `kid` or `kernel_distance`.
- A name ends in [network@hash,resize,n=...,ref=...@hash,effect=...]: numbers of other n, networks, references or common
  effects have other names and never meet in a table. n of the kernel distance is of the samples that its blocks take.
- The Fréchet distance is biased upwards by O(1 / n). Equal n does not take the bias out of a difference: it depends on
  the edited pictures' own covariance (Chong & Forsyth 2020). The kernel distance has no bias and stands beside it.
- Intervals, 95 %: Fréchet, jackknife over blocks of samples, Student's t (what further samples would change at this n).
  Kernel: Student's t over the blocks. In both the reference is held fixed.
- The same samples are behind every strength and method. Samples of the result are the blocks' pseudo-values
  B theta - (B - 1) theta_without_block, so that differences between methods are paired; `start` is the block.
- Scalars: `_up` and `_down` at the ends, where the mean effect is the common one (no number where it was not reached);
  `_zero` of the unedited pictures (the generator's own); `_floor` of other real pictures at the same n; `_asymmetry`,
  up minus down, paired.
- A strength at which an edited picture is not finite has no number: what is left would be of another n.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from editbench.metrics.frechet_distance.blocks import Estimate, jackknife, over_blocks

from editbench.stats.intervals import NO_INTERVAL, Interval
from editbench.walk.metric import ROW_COLUMNS, MetricResult, ObservationMetric, no_samples, row
from editbench.walk.observation import Observed

NAN = float("nan")
ENDS = ("up", "down", "zero", "floor", "asymmetry")
UNLIKE = (
    0.1  # an end whose effect over all samples differs by more from the calibrated one has a note
)
KINDS = ("frechet_distance", "kernel_distance", "fid", "kid")


class FrechetDistance(ObservationMetric):
    """Curves `frechet_distance` and `kernel_distance` (x: strength in steps), `..._by_effect` (x: mean achieved effect
    in sigmas, negative towards the class of t < 0), `achieved_effect` (x: strength), and the scalars above; `fid` and
    `kid` in their place in the features of an Inception network."""

    name = "frechet_distance"
    observation = "frechet_distance"
    version = 1
    citation = (
        "Cherepkov, Voynov & Babenko: Navigating the GAN Parameter Space, CVPR 2021, Fig. 7, 11, 14; Heusel et "
        "al.: GANs Trained by a Two Time-Scale Update Rule, NeurIPS 2017, eq. 6; Binkowski et al.: "
        "Demystifying MMD GANs, ICLR 2018"
    )
    produces = (
        {kind + end: False for kind in KINDS for end in ("", "_by_effect")}
        | {
            f"{kind}_{end}": False if end in ("up", "down") else None
            for kind in KINDS
            for end in ENDS
        }
        | {"achieved_effect": None}
    )

    def compute(self, stats: Observed) -> MetricResult:
        arrays, meta = stats.arrays, stats.meta
        frechet, kernel = (
            ("fid", "kid") if meta["inception"] else ("frechet_distance", "kernel_distance")
        )
        whole = arrays["broken"] == 0
        curves = {frechet: jackknife(arrays, whole), kernel: over_blocks(arrays["kernel"], whole)}
        strength, n = arrays["strength"], int(meta["n"])
        effect, spread = mean_effect(arrays, n)
        rows, samples = [], [no_samples()]
        for t, mean, half in zip(strength, effect, spread):
            rows.append(row("achieved_effect", mean, n, mean - half, mean + half, x=float(t)))
        for name, estimate in curves.items():
            used = int(meta["kernel_n"]) if name == kernel else n
            bracket = brackets(meta, used)
            for position, t in enumerate(strength):
                count = int(arrays["broken"][position])
                note = f"{count} of {n} edited pictures are not finite" if count else ""
                one = estimate.value[position], used, *estimate.interval(position)
                rows += [
                    row(name + end + bracket, *one, x=float(x), note=note)
                    for end, x in (("", t), ("_by_effect", effect[position]))
                ]
            for end, value, interval, blocks, note in scalars(estimate, arrays, meta):
                rows.append(row(f"{name}_{end}{bracket}", value, used, *interval, note=note))
                if blocks is not None:
                    samples.append(
                        pd.DataFrame(
                            {
                                "metric": f"{name}_{end}{bracket}",
                                "start": np.arange(len(blocks)),
                                "value": blocks,
                            }
                        )
                    )
            if name == frechet and "floor_sum" in arrays:
                rows.append(row(f"{name}_floor{bracket}", estimate.floor, n))
        return MetricResult(
            pd.DataFrame(rows, columns=list(ROW_COLUMNS)), pd.concat(samples, ignore_index=True)
        )


def brackets(meta: dict, n: int) -> str:
    """What a number may be compared by: '[judge@1c8e,none,n=1000,ref=renders@07aa,effect=0.25]'."""
    resize = str(meta["resize"]).split(",")[0].split(" inside")[0]
    return f"[{meta['network']},{resize},n={n},ref={meta['reference']},effect={meta['effect']:g}]"


def mean_effect(arrays: dict[str, np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean achieved effect (T,) and the half-width of its interval; pictures that are not finite count as no effect."""
    mean = arrays["effect"] / n
    variance = np.maximum(arrays["effect_square"] / n - mean**2, 0.0)
    return mean, 1.96 * np.sqrt(variance / n)


def scalars(
    estimate: Estimate, arrays: dict[str, np.ndarray], meta: dict
) -> list[tuple[str, float, Interval, np.ndarray | None, str]]:
    """(name, value, interval, pseudo-values, note) at the ends, at 0, and of their difference."""
    strength = arrays["strength"]
    ends, notes = {"up": len(strength) - 1, "down": 0}, {}
    for side in ends:
        reach = meta[side]
        notes[side] = (
            ""
            if reach["reached"]
            else (
                f"an effect of {meta['effect']:g} sigma towards '{meta['classes'][side == 'up']}' was not reached: "
                f"{'' if reach['effect'] > meta['effect'] else 'at most '}{reach['effect']:.2g}, at "
                f"{abs(reach['strength']):.3g} steps"
            )
        )
    out: list[tuple[str, float, Interval, np.ndarray | None, str]] = []
    for side, place in ends.items():
        if notes[side]:
            out.append((side, NAN, NO_INTERVAL, None, notes[side]))
        else:
            mean = abs(arrays["effect"][place]) / int(meta["n"])
            off = abs(mean / meta["effect"] - 1) > UNLIKE
            told = (
                f"over all {meta['n']} the mean effect is {mean:.2g}: raise observation.frechet_distance.samples"
                if off
                else ""
            )
            out.append(
                (
                    side,
                    estimate.value[place],
                    estimate.interval(place),
                    estimate.blocks[place],
                    told,
                )
            )
    zero = int(np.flatnonzero(strength == 0)[0])
    out.append(("zero", estimate.value[zero], estimate.interval(zero), estimate.blocks[zero], ""))
    note = "; ".join(filter(None, notes.values()))
    up, down = ends["up"], ends["down"]
    between: tuple[float, Interval, np.ndarray | None] = (
        (NAN, NO_INTERVAL, None)
        if note
        else (
            estimate.value[up] - estimate.value[down],
            estimate.difference(up, down),
            estimate.blocks[up] - estimate.blocks[down],
        )
    )
    return [*out, ("asymmetry", *between, note)]
