"""Features of edited images over signed strength, for the Fréchet and the kernel distance.

Cherepkov et al. 2021, Fig. 7, 11 and 14: FID of the edited generator against real images for shifts
t in [-t_max, t_max], with the t_max of the methods matched by eye. Here each side's t_max is
calibrated to a common mean effect on the judge's log-odds (editbench.walk.strength.calibrate), and
the grid is evenly spaced on each side of t = 0.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.files import digest
from editbench.base.progress import progress
from editbench.base.validation import check_kind
from editbench.metrics.frechet_distance.by_class import class_statistics
from editbench.metrics.frechet_distance.reference import (
    Reference,
    ReferenceFeatures,
    Renders,
    statistics,
)
from editbench.networks.external import freeze
from editbench.networks.features import FeatureNetwork, InceptionFeatures, ScorerFeatures
from editbench.stats.moments import KernelDistances, Moments, block_ends, in_blocks
from editbench.walk.observation import AfterWalk, ObservationContext, Observed
from editbench.walk.strength import (
    Reach,
    calibrate,
    edited_codes,
    measure_effect,
    require_samples,
    sides,
    start_logits,
)

SCORERS = ("judge", "teacher")
LARGEST = 2**30  # bytes; limit for the moments, which are held in memory and in the record
SHORT = 4  # digits of a hash in a name, enough to distinguish the networks of one report


class FrechetDistanceObservation(AfterWalk):
    """Moments of features, and kernel distances, over signed strength.

    Arrays, with T strengths in ascending order, B blocks of samples and d features:

    - strength: (T,).
    - count, sum, outer: (T, B), (T, B, d), (T, B, d (d + 1) / 2) moments of the edited pictures'
      features, see editbench.stats.moments.Moments.
    - kernel: (T, S), see editbench.stats.moments.KernelDistances.
    - effect, effect_square: (T,) sums over samples of the achieved effect towards the class of
      t > 0; its other sign is the effect towards the class of t < 0.
    - broken: (T,) number of images without finite features.
    - label: (T, B, K) number of images with finite features, by the judge's class.
    - reference_*, floor_*: see editbench.metrics.frechet_distance.reference.statistics.
    - class_*, other_*: see editbench.metrics.frechet_distance.by_class.class_statistics; only with
      `matched`.
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
        matched: bool = True,
    ) -> None:
        """Check the options.

        Args:
            network: 'judge' or 'teacher', whose last features are used (a Fréchet distance, but not
                FID), or a FeatureNetwork; only InceptionFeatures give FID.
            reference: real images; None for renders of the embedded world.
            n: number of samples at each strength, and of real images.
            points: number of strengths; odd, since equally many lie on both sides of 0.
            effect: mean change of the judge's log-odds at both ends, in sigmas.
            samples: number of samples for the calibration of the ends.
            tolerance: relative tolerance of the effect there.
            cap: largest number of steps on either side.
            blocks: B, number of blocks for the Fréchet distance's interval; use 1 (no interval) for
                features with many hundred dimensions, whose moments are large.
            subsets: S, number of blocks of the kernel distance.
            kernel: largest number of real images, and of samples per block, in the kernel distance.
            matched: whether to compute also the Fréchet distance to real images with the edited
                images' share of the attribute; see editbench.metrics.frechet_distance.matching.

        Raises:
            EditbenchError: a value is out of its range, or the moments would be larger than
                LARGEST.
        """
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
        check_kind("matched", matched, "bool")
        if network not in SCORERS and not isinstance(network, FeatureNetwork):
            told = network if isinstance(network, str) else type(network).__name__
            raise EditbenchError(
                f"observation.frechet_distance.network={told}: use judge, teacher, or a "
                "FeatureNetwork by its _target_"
            )
        # Two pictures a block: a covariance of one is not defined.
        few = min(samples, cap, blocks, subsets) < 1
        few = few or min(n // max(blocks, subsets, 1), kernel) < 2
        if points < 3 or points % 2 == 0 or few or not (effect > 0 and 0 < tolerance < 1):
            raise EditbenchError(
                "observation.frechet_distance: points must be odd and at least 3, effect positive, "
                "tolerance between 0 and 1, samples, cap, blocks and subsets at least 1, and a "
                "block needs 2 of the n samples or more: "
                f"{whole | {'effect': effect, 'tolerance': tolerance}}"
            )
        self.network = network
        self.reference = reference or Renders()
        self.n = n
        self.points = points
        self.effect = float(effect)
        self.samples = samples
        self.tolerance = float(tolerance)
        self.cap = cap
        self.blocks = blocks
        self.subsets = subsets
        self.kernel = min(kernel, n)
        self.matched = matched
        # The width of a scorer's features is known only when the scorer is available, in `look`.
        if isinstance(network, FeatureNetwork):
            self._check_size(network)

    def check(self, context: ObservationContext) -> None:
        """Check that there are images, enough samples, and a suitable reference.

        Raises:
            Unsupported: there are no images, or the reference is of another kind.
            EditbenchError: there are too few samples or images, or the moments would be larger than
                LARGEST.
        """
        if context.generator.output != "image":
            raise Unsupported("there are no pictures: the judge scores codes")
        classes = context.judge.attributes[context.attribute].classes
        # Two sets of images, each unedited and edited, by class.
        self._check_size(self._network(context), 4 * len(classes) if self.matched else 0)
        self.reference.check(context)
        require_samples(context, "observation.frechet_distance.n", self.n)
        size = self.reference.size(context)
        if size < self.n:
            raise EditbenchError(
                f"observation.frechet_distance.n={self.n}: reference '{self.reference.name}' has "
                f"{size} pictures: set it to {size} or less, or give a larger reference (raise "
                "bank.n, where it is the bank)"
            )

    def look(self, context: ObservationContext) -> Observed:
        """Compute the features of real images and of edits, and their sums.

        Raises:
            Unsupported: the images of the reference have another shape.
        """
        network = self._network(context)
        classes = context.judge.attributes[context.attribute].classes
        resolution = self._check_shapes(context)
        # Real images are the same for all jobs, so their statistics come from the cache.
        real = ReferenceFeatures(context, self.reference, network, self.n, resolution)
        stats = statistics(real, self.kernel)
        by_class = class_statistics(real) if self.matched else {}
        down = self._end(context, -1)
        up = self._end(context, 1)
        arrays = self._sum_features(context, network, self._grid(down, up), stats["features"])
        backward, forward = sides(context.judge.attributes[context.attribute], context.target)
        meta = {
            # With hashes, since networks or references of the same name may not be comparable.
            "network": f"{network.name}@{digest(network.digest, SHORT)}",
            "resize": network.resize,
            "inception": isinstance(network, InceptionFeatures),
            "digest": network.digest,
            "dim": network.dim,
            "n": self.n,
            "kernel_n": self.subsets * self._kernel_block(),
            "reference": f"{self.reference.name}@{digest(self.reference.identity(context), SHORT)}",
            "effect": self.effect,
            "kernel": self.kernel,
            "down": asdict(down),
            "up": asdict(up),
            "unit": context.editor.unit,
            "classes": [classes[backward], classes[forward]],
            "every_class": list(classes),
            "matched": self.matched,
        }
        for name, array in stats.items():
            if name == "features":
                continue  # they stay in the cache, since the kernel distance is already computed
            own = name if name.startswith("floor_") else f"reference_{name}"
            arrays[own] = array
        return Observed(arrays | by_class, meta)

    def _network(self, context: ObservationContext) -> FeatureNetwork:
        if isinstance(self.network, str):
            return ScorerFeatures(getattr(context, self.network), name=self.network)
        return freeze(self.network, context.device)

    def _check_size(self, network: FeatureNetwork, groups: int = 0) -> None:
        """Reject moments that would fill the memory.

        Args:
            network: whose features are used.
            groups: number of groups of reference images with separate moments.
        """
        # A triangle of second moments, with 8 bytes per number, for every strength and block.
        triangle = network.dim * (network.dim + 1) // 2
        size = (self.points * self.blocks + groups) * triangle * 8
        if size > LARGEST:
            raise EditbenchError(
                f"the moments of {self.points} strengths by {self.blocks} blocks in {network.dim} "
                f"features take {size / 2**30:.1f} GiB: set observation.frechet_distance.blocks=1"
            )

    def _check_shapes(self, context: ObservationContext) -> int:
        """Decode one image before the long computation, and return the images' resolution."""
        _, _, codes = next(edited_codes(replace(context, batch=1), [0.0], self.n))
        picture = context.generator.decode(codes)[0]
        real = self.reference.images(context, 0, 1, picture.shape[-1])[0]
        if real.shape != picture.shape:
            raise Unsupported(
                f"pictures of reference '{self.reference.name}' are {tuple(real.shape)}, those of "
                f"the generator {tuple(picture.shape)} (channels, height, width): give a reference "
                "of its kind, such as BankImages"
            )
        return picture.shape[-1]

    def _end(self, context: ObservationContext, sign: int) -> Reach:
        """The end of one side."""
        samples = min(self.samples, self.n)
        return calibrate(context, sign, self.effect, samples, self.tolerance, self.cap)

    def _kernel_block(self) -> int:
        """Number of samples per block in the kernel distance."""
        return min(self.kernel, self.n // self.subsets)

    def _grid(self, down: Reach, up: Reach) -> np.ndarray:
        """`points` ascending strengths, even on each side; none on a side without effect."""
        share = np.arange(self.points // 2 + 1) / (self.points // 2)
        both = np.concatenate([down.strength * share, up.strength * share])
        # Adding 0 turns -0 into 0; otherwise -0 could count as a further strength.
        return np.unique(both + 0.0)

    def _sum_features(
        self,
        context: ObservationContext,
        network: FeatureNetwork,
        grid: np.ndarray,
        reference: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Compute the arrays of the edited images.

        Args:
            context: editor, networks and bank of the job.
            network: whose features are used.
            grid: (T,) strengths.
            reference: (k, d) features of real images, for the kernel distance.
        """
        size = len(grid)
        # Sums for all strengths at once, since each batch comes at all strengths before the next.
        moments = [Moments(self.n, self.blocks, network.dim) for _ in grid]
        kernel = KernelDistances(self.n, self.subsets, self._kernel_block(), size, reference)
        classes = len(context.judge.attributes[context.attribute].classes)
        label = np.zeros((size, self.blocks, classes))
        ends = block_ends(self.n, self.blocks)
        gained = np.zeros(size)
        square = np.zeros(size)
        broken = np.zeros(size, np.int64)
        place = {float(t): position for position, t in enumerate(grid)}
        with progress("edited pictures", size * self.n) as advance:
            for t, rows, codes in edited_codes(context, list(place), self.n):
                images = context.generator.decode(codes)
                at = place[t]
                x = network(images).float()
                features = x.cpu().numpy()
                moments[at].update(features, rows.start)
                kernel.add(at, features, rows.start)
                # The judge scores the same images, for the distance over achieved effect.
                logits = context.judge(images).float()
                change = self._effect(context, t, rows, logits)
                gained[at] += change.sum()
                square[at] += (change**2).sum()
                fine = torch.isfinite(x).all(1).cpu().numpy()
                broken[at] += int((~fine).sum())
                found = context.judge.attributes.labels(logits, context.attribute).cpu().numpy()
                for block, part in in_blocks(ends, rows.start, len(x)):
                    kept = found[part][fine[part]]
                    label[at, block] += np.bincount(kept, minlength=classes)
                advance(len(x))
        return {
            "strength": grid,
            "count": np.stack([m.arrays()["count"] for m in moments]),
            "sum": np.stack([m.arrays()["sum"] for m in moments]),
            "outer": np.stack([m.arrays()["outer"] for m in moments]),
            "kernel": kernel.value,
            "effect": gained,
            "effect_square": square,
            "broken": broken,
            "label": label,
        }

    def _effect(
        self, context: ObservationContext, t: float, rows: slice, logits: Tensor
    ) -> np.ndarray:
        """Effect of a batch, towards the class of t > 0; 0 if it is not finite.

        Args:
            context: editor, networks and bank of the job.
            t: strength.
            rows: rows of the batch, in 0..n.
            logits: (b, width) of the judge, for the edited images.

        Returns:
            (b,) float64.
        """
        backward, forward = sides(context.judge.attributes[context.attribute], context.target)
        # An attribute with several classes has no common axis, so each side uses its own class.
        towards = forward if t >= 0 else backward
        change = measure_effect(context, logits, start_logits(context, rows), towards).cpu().numpy()
        # An image that the judge cannot score adds nothing.
        return np.where(np.isfinite(change), change, 0.0) * (1 if t >= 0 else -1)
