"""Features of edited pictures over signed strength, as statistics for the Fréchet and the kernel distance.

Cherepkov et al. 2021, Fig. 7, 11 and 14: FID of the edited generator against real pictures for shifts t in
[-t_max, t_max], where the t_max of the methods were matched by eye. Here each side's t_max is calibrated to one mean
effect on the judge's log-odds (editbench.walk.strength.calibrate), and the grid is even on each side of t = 0.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import torch
from editbench.metrics.frechet_distance.reference import Reference, Renders, statistics

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.files import digest
from editbench.base.progress import progress
from editbench.base.validation import check_kind
from editbench.networks.features import FeatureNetwork, InceptionFeatures, ScorerFeatures
from editbench.stats.moments import Kernel, Moments
from editbench.walk.observation import AfterWalk, Observed, Scene
from editbench.walk.strength import (
    Reach,
    calibrate,
    edited_codes,
    measure_effect,
    sides,
    start_logits,
)

SCORERS = ("judge", "teacher")
LARGEST = 2**30  # bytes of moments
SHORT = 4  # digits of a hash in a name


class FrechetDistanceObservation(AfterWalk):
    """Arrays, T strengths in ascending order, B blocks of samples, d features: strength (T,); count (T, B), sum
    (T, B, d), outer (T, B, d (d + 1) / 2) of the edited pictures' features; kernel (T, S), see
    editbench.stats.moments.Kernel; effect and effect_square (T,), sums over samples of the achieved effect towards
    the class of t > 0 (its other sign: towards that of t < 0); broken (T,), pictures without finite features;
    reference_* and floor_* as editbench.metrics.frechet_distance.reference.statistics.

    Args:
        network: 'judge' or 'teacher', whose last features are taken (a Fréchet distance, no FID), or a FeatureNetwork;
            only InceptionFeatures make an FID.
        reference: real pictures; None: renders of the embedded world.
        n: samples at each strength, and real pictures.
        points: strengths, odd: as many on both sides of 0.
        effect: sigmas of the judge's log-odds at both ends; samples, tolerance, cap: of their calibration.
        blocks: B, of the Fréchet distance's interval; 1 (no interval) for features of many hundred dimensions, whose
            moments are large: more than LARGEST bytes are refused.
        subsets: blocks of the kernel distance, S.
        kernel: real pictures, and samples of a block, that the kernel distance compares, at most.
    """

    citation = (
        "Cherepkov, Voynov & Babenko: Navigating the GAN Parameter Space, CVPR 2021, Fig. 7, 11, 14"
    )

    def __init__(
        self,
        network: str | FeatureNetwork = "judge",
        reference: Reference | None = None,
        n: int = 2000,
        points: int = 11,
        effect: float = 1.0,
        samples: int = 512,
        tolerance: float = 0.02,
        cap: int = 40,
        blocks: int = 10,
        subsets: int = 10,
        kernel: int = 1000,
    ) -> None:
        whole = {
            "n": n,
            "points": points,
            "samples": samples,
            "cap": cap,
            "blocks": blocks,
            "subsets": subsets,
            "kernel": kernel,
        }
        for name, value in whole.items():
            check_kind(name, value, "int")
        if isinstance(network, str) and network not in SCORERS:
            raise EditbenchError(
                f"observation.frechet_distance.network={network}: take judge, teacher, or a FeatureNetwork by its "
                "_target_"
            )
        few = (
            min(samples, cap, blocks, subsets) < 1 or min(n // max(blocks, subsets, 1), kernel) < 2
        )
        if points < 3 or points % 2 == 0 or few or not (effect > 0 and 0 < tolerance < 1):
            raise EditbenchError(
                "observation.frechet_distance: points is odd and at least 3, effect positive, tolerance between 0 "
                "and 1, samples, cap, blocks and subsets at least 1, and a block has 2 of the n "
                f"samples or more: {whole | {'effect': effect, 'tolerance': tolerance}}"
            )
        self.network, self.reference, self.n, self.points = (
            network,
            reference or Renders(),
            n,
            points,
        )
        self.effect, self.samples, self.tolerance, self.cap = (
            float(effect),
            samples,
            float(tolerance),
            cap,
        )
        self.blocks, self.subsets, self.kernel = blocks, subsets, min(kernel, n)
        if isinstance(network, FeatureNetwork):
            self._check_room(network)

    def look(self, scene: Scene) -> Observed:
        if scene.generator.output != "image":
            raise Unsupported("there are no pictures: the judge scores codes")
        network = self._network(scene)
        self._check_room(network)
        self.reference.check(scene)
        first = next(edited_codes(replace(scene, batch=1), [0.0], self.n))[
            2
        ]  # says now whether there are n
        picture = scene.generator.decode(first)[0]
        real = self.reference.images(scene, 0, 1, picture.shape[-1])[0]
        if real.shape != picture.shape:
            raise Unsupported(
                f"pictures of reference '{self.reference.name}' are {tuple(real.shape)}, those of the "
                f"generator {tuple(picture.shape)} (channels, height, width): give a reference of its "
                "kind, such as BankImages"
            )
        stats = statistics(scene, self.reference, network, self.n, self.kernel, picture.shape[-1])
        reach = {
            sign: calibrate(
                scene, sign, self.effect, min(self.samples, self.n), self.tolerance, self.cap
            )
            for sign in (-1, 1)
        }
        arrays = self._features(scene, network, self._grid(reach), stats["features"])
        about = sides(scene.judge.attributes[scene.attribute], scene.target)
        classes = scene.judge.attributes[scene.attribute].classes
        meta = {
            "network": f"{network.name}@{digest(network.digest, SHORT)}",
            "resize": network.resize,
            "inception": isinstance(network, InceptionFeatures),
            "digest": network.digest,
            "dim": network.dim,
            "n": self.n,
            "kernel_n": self.subsets * min(self.kernel, self.n // self.subsets),
            "reference": f"{self.reference.name}@{digest(self.reference.identity(scene), SHORT)}",
            "effect": self.effect,
            "kernel": self.kernel,
            "down": asdict(reach[-1]),
            "up": asdict(reach[1]),
            "unit": scene.editor.unit,
            "classes": [classes[side] for side in about],
        }
        kept = {
            name if name.startswith("floor_") else f"reference_{name}": array
            for name, array in stats.items()
            if name != "features"
        }
        return Observed(arrays | kept, meta)

    def _network(self, scene: Scene) -> FeatureNetwork:
        if isinstance(self.network, str):
            return ScorerFeatures(getattr(scene, self.network), name=self.network)
        return self.network.to(scene.device).eval().requires_grad_(False)

    def _check_room(self, network: FeatureNetwork) -> None:
        size = self.points * self.blocks * network.dim * (network.dim + 1) // 2 * 8
        if size > LARGEST:
            raise EditbenchError(
                f"the moments of {self.points} strengths by {self.blocks} blocks in {network.dim} "
                f"features are {size / 2**30:.1f} GiB: set observation.frechet_distance.blocks=1"
            )

    def _grid(self, reach: dict[int, Reach]) -> np.ndarray:
        """`points` strengths in ascending order, even on each side; none on a side that leads nowhere."""
        share = np.arange(self.points // 2 + 1) / (self.points // 2)
        return np.unique(
            np.concatenate([reach[-1].strength * share, reach[1].strength * share]) + 0.0
        )

    def _features(
        self, scene: Scene, network: FeatureNetwork, grid: np.ndarray, reference: np.ndarray
    ) -> dict[str, np.ndarray]:
        size, forward = len(grid), sides(scene.judge.attributes[scene.attribute], scene.target)
        moments = [Moments(self.n, self.blocks, network.dim) for _ in grid]
        kernel = Kernel(
            self.n, self.subsets, min(self.kernel, self.n // self.subsets), size, reference
        )
        gained, square, broken = np.zeros(size), np.zeros(size), np.zeros(size, np.int64)
        place = {float(t): position for position, t in enumerate(grid)}
        with progress("edited pictures", size * self.n) as advance:
            for t, rows, codes in edited_codes(scene, list(place), self.n):
                images, at = scene.generator.decode(codes), place[t]
                x = network(images).float()
                moments[at].add(x.cpu().numpy(), rows.start)
                kernel.add(at, x.cpu().numpy(), rows.start)
                towards = forward[1] if t >= 0 else forward[0]
                change = (
                    effect(scene, scene.judge(images).float(), start_logits(scene, rows), towards)
                    .cpu()
                    .numpy()
                )
                change = np.where(np.isfinite(change), change, 0.0) * (1 if t >= 0 else -1)
                gained[at] += change.sum()
                square[at] += (change**2).sum()
                broken[at] += int((~torch.isfinite(x).all(1)).sum())
                advance(len(x))
        return {
            "strength": grid,
            "count": np.stack([m.count for m in moments]),
            "sum": np.stack([m.sum for m in moments]),
            "outer": np.stack([m.outer for m in moments]),
            "kernel": kernel.value,
            "effect": gained,
            "effect_square": square,
            "broken": broken,
        }
