"""Where in the picture an edit acts: energy of the pixel differences, by pixel and by region of the face.

Cherepkov et al. 2021, Fig. 12: H(p) = E_{z,t} |G_edit(z, t)[p] - G(z)[p]|^2, summed over the channels, pictures in
[-1, 1] and clamped before the difference. The paper has 1600 z and 20 t of a uniform grid in [-100, 100], units of its
own weights; here each side's end has a common mean effect (editbench.walk.strength.calibrate), or is given.
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
from editbench.networks.generator import Generator
from editbench.walk.observation import AfterWalk, Observed, Scene
from editbench.walk.strength import Reach, calibrate, edited_codes, sides
from editbench.worlds.faces.regions import REGIONS, regions
from editbench.worlds.faces.truth import RenderGenerator, to_factors
from editbench.worlds.parser import RegionParser

LEAST = 1e-3  # sigmas: less is rounding
Labels = Callable[[Codes, Tensor], Tensor]


class LocalityObservation(AfterWalk):
    """Arrays, B blocks of samples, R regions, float64 sums over samples and strengths: count (B,) of pictures that are
    finite; energy (B, h, w); region_energy and region_pixels (B, R, R), energy and number of the pixels that show
    region i before and region j after the edit (only with regions); broken (B,) pictures that are not finite, and left
    out; strength (T,); mean (C, h, w) float32, of the unedited pictures.

    Sample i of n belongs to block i * B // n, so blocks of two probes over other samples can be added.

    Args:
        parser: tells the regions; the renderer's own masks take its place where the generator is the renderer. None: no
            regions.
        n: samples (the paper's 1600). points: strengths, even on [-1, 1] of each side's end (20); 0 among them if odd.
        limit: the end of both sides in steps; None: where the mean effect is `effect` sigmas of the judge's log-odds.
        samples, tolerance, cap: of the calibration. blocks: B, of the intervals.
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
        whole = {"n": n, "points": points, "samples": samples, "cap": cap, "blocks": blocks}
        for name, value in whole.items():
            check_kind(f"observation.locality.{name}", value, "int")
        if not (
            min(samples, cap, blocks) >= 1
            and n >= blocks
            and points >= 2
            and effect > 0
            and 0 < tolerance < 1
            and (limit is None or limit > 0)
        ):
            raise EditbenchError(
                "observation.locality: points is at least 2, n at least blocks, samples, cap and blocks at "
                "least 1, effect and limit positive, tolerance between 0 and 1: "
                f"{whole | {'effect': effect, 'limit': limit, 'tolerance': tolerance}}"
            )
        self.parser, self.n, self.points, self.blocks = parser, n, points, blocks
        self.limit = None if limit is None else float(limit)
        self.effect, self.samples, self.tolerance, self.cap = (
            float(effect),
            samples,
            float(tolerance),
            cap,
        )

    def look(self, scene: Scene) -> Observed:
        if scene.generator.output != "image":
            raise Unsupported("there are no pictures: the judge scores codes")
        reach = {
            sign: Reach(sign * self.limit, float("nan"), True)
            if self.limit is not None
            else calibrate(
                scene, sign, self.effect, min(self.samples, self.n), self.tolerance, self.cap
            )
            for sign in (-1, 1)
        }
        grid = self._grid(reach)
        if not np.any(grid):
            raise Unsupported("the edit changes nothing that the judge sees, on either side")
        names, labels = self._regions(scene)
        arrays = self._stream(scene, grid, labels, len(names))
        classes = scene.judge.attributes[scene.attribute].classes
        backward, forward = sides(scene.judge.attributes[scene.attribute], scene.target)
        meta = {
            "n": self.n,
            "attribute": scene.attribute,
            "regions": list(names),
            "unit": scene.editor.unit,
            "effect": self.effect if self.limit is None else None,
            "down": asdict(reach[-1]),
            "up": asdict(reach[1]),
            "classes": [classes[backward], classes[forward]],
            "masks": "exact"
            if isinstance(scene.generator, RenderGenerator)
            else "parser"
            if names
            else "",
        }
        return Observed(arrays | {"strength": grid}, meta)

    def _grid(self, reach: dict[int, Reach]) -> np.ndarray:
        """Strengths in ascending order; none on a side that leads nowhere."""
        share = np.linspace(-1, 1, self.points)
        down, up = (
            abs(side.strength) if side.reached or side.effect > LEAST else 0.0
            for side in (reach[-1], reach[1])
        )
        ends = np.where(share < 0, down, up)
        return np.unique((share * ends)[(ends != 0) | (share == 0)] + 0.0)

    def _regions(self, scene: Scene) -> tuple[tuple[str, ...], Labels | None]:
        if isinstance(scene.generator, RenderGenerator):
            return REGIONS, exact_masks(scene.generator)
        if self.parser is None:
            return (), None
        parser = self.parser.to(scene.device).eval()

        def parsed(_codes: Codes, images: Tensor) -> Tensor:
            try:
                return parser(images)
            except EditbenchError as error:
                raise EditbenchError(
                    f"{error}; set observation.locality.parser=null where there are no faces"
                ) from error

        return parser.names, parsed

    def _stream(
        self, scene: Scene, grid: np.ndarray, labels: Labels | None, regions_: int
    ) -> dict[str, np.ndarray]:
        sums: _Sums | None = None
        wanted = set(grid.tolist())
        with progress("heatmap", len(wanted) * self.n) as advance:
            for t, rows, codes in edited_codes(scene, sorted(wanted | {0.0}), self.n):
                images = clamped(scene.generator, codes)
                if sums is None:
                    sums = _Sums(
                        self.n, self.blocks, tuple(images.shape[1:]), regions_, images.device
                    )
                if t == 0:  # comes first of every batch
                    start, before = images, None if labels is None else labels(codes, images)
                    sums.start(start)
                if t not in wanted:
                    continue
                after = before if t == 0 or labels is None else labels(codes, images)
                sums.add(rows.start, start, images, before, after)
                advance(len(images))
        assert sums is not None
        return sums.arrays()


class _Sums:
    """Sums of one probe, on the device of the pictures."""

    def __init__(
        self, n: int, blocks: int, shape: tuple[int, ...], regions_: int, device: torch.device
    ) -> None:
        self.n, self.blocks, self.regions = n, blocks, regions_

        def zeros(*size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.float64, device=device)

        self.count, self.broken, self.energy = (
            zeros(blocks),
            zeros(blocks),
            zeros(blocks, *shape[-2:]),
        )
        self.by_region, self.pixels = zeros(blocks * regions_**2), zeros(blocks * regions_**2)
        self.mean, self.shown = zeros(*shape), 0

    def start(self, images: Tensor) -> None:
        sound = images.isfinite().flatten(1).all(1)
        self.mean += images[sound].double().sum(0)
        self.shown += int(sound.sum())

    def add(
        self, first: int, start: Tensor, images: Tensor, before: Tensor | None, after: Tensor | None
    ) -> None:
        """Pictures (b, C, h, w) of samples first..first + b - 1; those that are not finite are counted alone."""
        block = (
            torch.arange(first, first + len(images), device=images.device) * self.blocks // self.n
        )
        energy = (images.double() - start.double()).square().sum(1)
        sound = energy.isfinite().flatten(1).all(1)
        self.broken.index_add_(
            0, block[~sound], torch.ones_like(block[~sound], dtype=torch.float64)
        )
        energy, block = energy[sound], block[sound]
        self.count.index_add_(0, block, torch.ones_like(block, dtype=torch.float64))
        self.energy.index_add_(0, block, energy)
        if before is not None and after is not None:
            place = (block[:, None, None] * self.regions + before[sound]) * self.regions + after[
                sound
            ]
            self.by_region.index_add_(0, place.flatten(), energy.flatten())
            self.pixels += torch.bincount(place.flatten(), minlength=len(self.pixels))

    def arrays(self) -> dict[str, np.ndarray]:
        out = {
            "count": self.count,
            "broken": self.broken,
            "energy": self.energy,
            "mean": (self.mean / max(self.shown, 1)).float(),
        }
        if self.regions:
            shape = (self.blocks, self.regions, self.regions)
            out |= {
                "region_energy": self.by_region.view(shape),
                "region_pixels": self.pixels.view(shape),
            }
        return {name: value.cpu().numpy() for name, value in out.items()}


def clamped(generator: Generator, codes: Codes) -> Tensor:
    """Pictures as they are shown, in [-1, 1]; NaN stays."""
    return generator.decode(codes).float().clamp(-1, 1)


def exact_masks(generator: RenderGenerator) -> Labels:
    """The renderer's own regions of what codes of Z or W show."""

    def known(codes: Codes, _images: Tensor) -> Tensor:
        w = generator.map(codes.values) if codes.space == Space.Z else codes.values
        return regions(to_factors(w), generator.resolution)

    return known
