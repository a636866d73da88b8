"""Where in the image an edit acts: energy of the pixel differences, by pixel and by region.

Cherepkov et al. 2021, Fig. 12: H(p) = E_{z,t} |G_edit(z, t)[p] - G(z)[p]|^2, summed over the
channels, with images clamped to [-1, 1] before the difference. The paper uses 1600 z and 20 t on a
uniform grid in [-100, 100], in units of its own weights. Here each side ends at a common mean
effect (editbench.walk.strength.calibrate), or at a given strength.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.progress import progress
from editbench.base.spaces import Codes, Space
from editbench.base.validation import check_kind
from editbench.networks.external import freeze
from editbench.networks.generator import Generator
from editbench.walk.observation import AfterWalk, ObservationContext, Observed
from editbench.walk.strength import Reach, calibrate, edited_codes, require_samples, sides
from editbench.worlds.faces.regions import REGIONS, regions
from editbench.worlds.faces.truth import RenderGenerator, to_factors
from editbench.worlds.parser import RegionParser

# A side with a smaller mean effect, in sigmas, has no effect; the rest is rounding of float32.
LEAST = 1e-3

# Codes and their images (b, C, h, w) -> (b, h, w) int64, the region of every pixel.
Labels = Callable[[Codes, Tensor], Tensor]


class LocalityObservation(AfterWalk):
    """Sums of the energy of pixel differences.

    Sample i of n belongs to block i * B // n, so blocks of two records over other samples add up.
    Arrays, with B blocks of samples and R regions; float64 sums over samples and strengths:

    - count: (B,) number of finite images.
    - broken: (B,) number of images that are not finite; they are left out of the other sums.
    - energy: (B, h, w).
    - region_energy, region_pixels: (B, R, R) energy and number of the pixels that show region i
      before and region j after the edit; only with regions.
    - strength: (T,) the strengths.
    - mean: (C, h, w) float32, mean of the unedited images.
    """

    citation = "Cherepkov, Voynov & Babenko: Navigating the GAN Parameter Space, CVPR 2021, Fig. 12"

    def __init__(
        self,
        parser: RegionParser | None = None,
        n: int = 1600,
        points: int = 20,
        limit: float | None = None,
        effect: float = 1.0,
        samples: int = 512,
        tolerance: float = 0.02,
        cap: int = 40,
        blocks: int = 20,
    ) -> None:
        """Check the options.

        Args:
            parser: labels the regions of an image; None for no regions. If the generator is the
                renderer, its own exact masks replace the parser.
            n: number of samples; 1600 in the paper.
            points: number of strengths, evenly spaced on each side's [0, end]; 0 is included if the
                number is odd. 20 in the paper.
            limit: end of both sides in steps; None uses the strength at which the mean effect is
                `effect`.
            effect: mean change of the judge's log-odds at both ends, in sigmas.
            samples: number of samples for the calibration of the ends.
            tolerance: relative tolerance of the effect there.
            cap: largest number of steps on either side.
            blocks: B, number of blocks for the intervals.

        Raises:
            EditbenchError: a value is out of its range.
        """
        whole = {"n": n, "points": points, "samples": samples, "cap": cap, "blocks": blocks}
        for name, value in whole.items():
            check_kind(f"observation.locality.{name}", value, "int")
        counts_fit = min(samples, cap, blocks) >= 1 and n >= blocks and points >= 2
        shares_fit = effect > 0 and 0 < tolerance < 1 and (limit is None or limit > 0)
        if not (counts_fit and shares_fit):
            raise EditbenchError(
                "observation.locality: points must be at least 2, n at least blocks, samples, cap "
                "and blocks at least 1, effect and limit positive, tolerance between 0 and 1: "
                f"{whole | {'effect': effect, 'limit': limit, 'tolerance': tolerance}}"
            )
        self.parser = parser
        self.n = n
        self.points = points
        self.blocks = blocks
        self.limit = None if limit is None else float(limit)
        self.effect = float(effect)
        self.samples = samples
        self.tolerance = float(tolerance)
        self.cap = cap

    def check(self, context: ObservationContext) -> None:
        """Check that there are images, that the parser accepts them, and that samples suffice.

        Raises:
            Unsupported: there are no images.
            EditbenchError: the test split has fewer than n samples, or the parser does not accept
                such images.
        """
        if context.generator.output != "image":
            raise Unsupported("there are no pictures: the judge scores codes")
        require_samples(context, "observation.locality.n", self.n)
        _, labels = self._regions(context)
        generator = context.generator
        # Exact masks are not computed from the image.
        if labels is None or isinstance(generator, RenderGenerator):
            return
        first = context.bank.spec.split("test")[0]
        stored = np.array(context.bank.array(generator.latent_space.value).range(first, first + 1))
        codes = Codes(generator.latent_space, torch.from_numpy(stored).to(context.device))
        before = generator.decoded
        labels(codes, clamped(generator, codes))
        # Only a trial, so it is not counted as a cost.
        generator.decoded = before

    def look(self, context: ObservationContext) -> Observed:
        """Find the ends of both sides, and sum the energy over the strengths between.

        Raises:
            Unsupported: the edit changes nothing that the judge sees.
        """
        down = self._end(context, -1)
        up = self._end(context, 1)
        # One side may have no effect, if an editor has only one direction, but not both sides.
        grid = self._grid(down, up)
        if not np.any(grid):
            raise Unsupported("the edit changes nothing that the judge sees, on either side")
        names, labels = self._regions(context)
        arrays = self._sum_energy(context, grid, labels, len(names))
        classes = context.judge.attributes[context.attribute].classes
        backward, forward = sides(context.judge.attributes[context.attribute], context.target)
        masks = "parser" if names else ""
        # The renderer knows its regions; a parser would only add errors.
        if isinstance(context.generator, RenderGenerator):
            masks = "exact"
        meta = {
            "n": self.n,
            "attribute": context.attribute,
            "regions": list(names),
            "unit": context.editor.unit,
            "effect": self.effect if self.limit is None else None,
            "down": asdict(down),
            "up": asdict(up),
            "classes": [classes[backward], classes[forward]],
            "masks": masks,
        }
        return Observed(arrays | {"strength": grid}, meta)

    def _end(self, context: ObservationContext, sign: int) -> Reach:
        """The end of one side."""
        if self.limit is not None:
            return Reach(sign * self.limit, float("nan"), True)
        # At most n, since these are the first of the same n samples.
        samples = min(self.samples, self.n)
        return calibrate(context, sign, self.effect, samples, self.tolerance, self.cap)

    def _grid(self, down: Reach, up: Reach) -> np.ndarray:
        """Strengths in ascending order; none on a side without effect."""
        share = np.linspace(-1, 1, self.points)
        ends = []
        for side in (down, up):
            leads = side.reached or side.effect > LEAST
            ends.append(abs(side.strength) if leads else 0.0)
        end = np.where(share < 0, ends[0], ends[1])
        # Adding 0 turns -0 into 0; otherwise -0 could count as a further strength.
        return np.unique((share * end)[(end != 0) | (share == 0)] + 0.0)

    def region_names(self, context: ObservationContext) -> tuple[str, ...]:
        """The regions that pixels are labelled with; none without a parser."""
        return self._regions(context)[0]

    def _regions(self, context: ObservationContext) -> tuple[tuple[str, ...], Labels | None]:
        """Names of the regions, and the function that labels pixels; ((), None) without regions."""
        if isinstance(context.generator, RenderGenerator):
            return REGIONS, exact_masks(context.generator)
        if self.parser is None:
            return (), None
        parser = freeze(self.parser, context.device)

        def parse(_codes: Codes, images: Tensor) -> Tensor:
            try:
                return parser(images)
            except EditbenchError as error:
                raise EditbenchError(
                    f"{error}; set observation.locality.parser=null where there are no faces"
                ) from error

        return parser.names, parse

    def _sum_energy(
        self, context: ObservationContext, grid: np.ndarray, labels: Labels | None, regions_: int
    ) -> dict[str, np.ndarray]:
        """Compute the arrays of all sums.

        Args:
            context: editor, networks and bank of the job.
            grid: (T,) strengths.
            labels: labels the pixels; None for no regions.
            regions_: number of regions.
        """
        sums: _Sums | None = None
        wanted = set(grid.tolist())
        with progress("locality", len(wanted) * self.n) as advance:
            # The unedited images are decoded even if 0 is not on the grid, since the others are
            # compared with them. They come first in every batch.
            for t, rows, codes in edited_codes(context, sorted(wanted | {0.0}), self.n):
                images = clamped(context.generator, codes)
                # The size of the images is known only now.
                if sums is None:
                    shape = tuple(images.shape[1:])
                    sums = _Sums(self.n, self.blocks, shape, regions_, images.device)
                if t == 0:
                    start = images
                    before = None if labels is None else labels(codes, images)
                    sums.add_starts(start)
                if t not in wanted:
                    continue
                after = before
                if t != 0 and labels is not None:
                    after = labels(codes, images)
                sums.add(rows.start, start, images, before, after)
                advance(len(images))
        assert sums is not None
        return sums.arrays()


class _Sums:
    """Sums over samples and strengths, on the device of the images."""

    def __init__(
        self, n: int, blocks: int, shape: tuple[int, ...], regions_: int, device: torch.device
    ) -> None:
        self.n = n
        self.blocks = blocks
        self.regions = regions_

        def zeros(*size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.float64, device=device)

        # float64, since sums of millions of small squares lose precision in float32.
        self.count = zeros(blocks)
        self.broken = zeros(blocks)
        self.energy = zeros(blocks, *shape[-2:])
        # Flattened (block, region before, region after), so that a pixel needs a single index.
        self.by_region = zeros(blocks * regions_**2)
        self.pixels = zeros(blocks * regions_**2)
        self.mean = zeros(*shape)  # a sum, until `arrays` divides it
        self.shown = 0  # number of images in the sum

    def add_starts(self, images: Tensor) -> None:
        """Add unedited images (b, C, h, w) to their mean."""
        sound = images.isfinite().flatten(1).all(1)
        self.mean += images[sound].double().sum(0)
        self.shown += int(sound.sum())

    def add(
        self, first: int, start: Tensor, images: Tensor, before: Tensor | None, after: Tensor | None
    ) -> None:
        """Add the images of one batch; those that are not finite are only counted.

        Args:
            first: position of the first sample, in 0..n.
            start: (b, C, h, w) unedited images.
            images: (b, C, h, w) edited images.
            before: (b, h, w) regions of the unedited images, or None.
            after: (b, h, w) regions of the edited images, or None.
        """
        samples = torch.arange(first, first + len(images), device=images.device)
        block = samples * self.blocks // self.n
        energy = (images.double() - start.double()).square().sum(1)
        sound = energy.isfinite().flatten(1).all(1)
        broken = block[~sound]
        self.broken.index_add_(0, broken, torch.ones_like(broken, dtype=torch.float64))
        # A NaN would make the sums of its block NaN.
        energy = energy[sound]
        block = block[sound]
        self.count.index_add_(0, block, torch.ones_like(block, dtype=torch.float64))
        self.energy.index_add_(0, block, energy)
        if before is not None and after is not None:
            line = block[:, None, None] * self.regions + before[sound]
            place = line * self.regions + after[sound]
            self.by_region.index_add_(0, place.flatten(), energy.flatten())
            self.pixels += torch.bincount(place.flatten(), minlength=len(self.pixels))

    def arrays(self) -> dict[str, np.ndarray]:
        """The sums as the record keeps them."""
        out = {
            "count": self.count,
            "broken": self.broken,
            "energy": self.energy,
            "mean": (self.mean / max(self.shown, 1)).float(),
        }
        if self.regions:
            shape = (self.blocks, self.regions, self.regions)
            out["region_energy"] = self.by_region.view(shape)
            out["region_pixels"] = self.pixels.view(shape)
        return {name: value.cpu().numpy() for name, value in out.items()}


def clamped(generator: Generator, codes: Codes) -> Tensor:
    """Decode images and clamp them to [-1, 1], as for display; NaN stays NaN.

    Args:
        generator: decodes the codes.
        codes: n codes.

    Returns:
        (n, C, h, w) float32.
    """
    # Values beyond [-1, 1] are not visible, and the paper clamps before the difference too.
    return generator.decode(codes).float().clamp(-1, 1)


def exact_masks(generator: RenderGenerator) -> Labels:
    """The renderer's exact regions for codes of Z or W."""

    def label(codes: Codes, _images: Tensor) -> Tensor:
        w = generator.map(codes.values) if codes.space == Space.Z else codes.values
        return regions(to_factors(w), generator.resolution)

    return label
