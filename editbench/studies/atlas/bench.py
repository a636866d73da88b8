"""The samples of an atlas, unedited, and the effect of one direction on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from editbench.base.images import to_host_bytes
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer
from editbench.walk.editor import DirectionSet, Editor

SIDE = 128  # pixels: the larger side of a picture that is kept, at most


@dataclass(frozen=True)
class Measured:
    """What one direction does at T strengths. Of all directions the fields have a leading K.

    Args:
        change: (T, width) mean change of each log-odds against the unedited sample, in sigmas.
        error: (T, width) its standard error over the samples.
        size: (T, width) mean of the absolute change of a sample, in sigmas.
        distance: (T,) root mean square difference of the pictures in [-1, 1] from the unedited
            ones, a mean over the samples.
        pictures: (T, shown, C, H, W) uint8.
    """

    change: Tensor
    error: Tensor
    size: Tensor
    distance: Tensor
    pictures: Tensor


class Bench:
    """Samples that every direction edits. They are decoded and scored once.

    Args:
        generator: of the samples.
        scorer: of the pictures.
        latents: (n, d) the samples' own w, or z, n at least 2.
        space: that edits start from.
        sigma: (width,) standard deviation of each of the scorer's log-odds over the bank.
        shown: samples whose pictures are kept, the first ones.
        batch: samples that are decoded together.
    """

    @torch.inference_mode()
    def __init__(
        self,
        generator: Generator,
        scorer: Scorer,
        latents: Tensor,
        space: Space,
        sigma: Tensor,
        shown: int,
        batch: int,
    ) -> None:
        self.generator = generator
        self.scorer = scorer
        self.sigma = sigma
        self.shown = shown
        self.codes = generator.lift(latents, space).split(batch)
        self.unedited = [generator.decode(Codes(space, part)) for part in self.codes]
        self.odds = [self._log_odds(decoded) for decoded in self.unedited]

    def _log_odds(self, decoded: Tensor) -> Tensor:
        # Differences of near logits lose digits in float32.
        return self.scorer.attributes.log_odds(self.scorer(decoded).double())

    def pictures(self) -> Tensor:
        """The unedited pictures that are shown: (shown, C, H, W) uint8."""
        # Cut first, since all samples at once may be gigabytes.
        parts = [part[: self.shown] for part in self.unedited]
        return small_pictures(torch.cat(parts)[: self.shown])

    @torch.inference_mode()
    def measure(
        self, editor: Editor, found: DirectionSet, place: int, strengths: Sequence[float]
    ) -> Measured:
        """One direction at every strength.

        Args:
            editor: that found the directions.
            found: the directions.
            place: which of them.
            strengths: (T,) signed.
        """
        columns = [self._measure_at(editor, found, place, strength) for strength in strengths]
        return Measured(*(torch.stack(parts) for parts in zip(*columns)))

    def _measure_at(
        self, editor: Editor, found: DirectionSet, place: int, strength: float
    ) -> tuple[Tensor, ...]:
        """The fields of `Measured` at one strength."""
        changes = []
        distances = []
        shown = []
        left = self.shown
        for codes, unedited, odds in zip(self.codes, self.unedited, self.odds):
            edited = editor.apply_direction(found, place, strength, codes)
            decoded = self.generator.decode(edited)
            changes.append((self._log_odds(decoded) - odds) / self.sigma)
            gap = (decoded - unedited).flatten(1).double()
            distances.append(gap.square().mean(1).sqrt())
            if left > 0:
                shown.append(small_pictures(decoded[:left]))
                left -= len(shown[-1])
        change = torch.cat(changes)
        error = change.std(0) / len(change) ** 0.5
        distance = torch.cat(distances).mean()
        return change.mean(0), error, change.abs().mean(0), distance, torch.cat(shown)


def small_pictures(images: Tensor) -> Tensor:
    """Pictures as bytes, reduced to a side of at most SIDE.

    Args:
        images: (n, C, H, W) in [-1, 1]; what is not a number becomes grey.

    Returns:
        (n, C, h, w) uint8 on the CPU.
    """
    images = torch.nan_to_num(images.float(), nan=0.0, posinf=1.0, neginf=-1.0)
    high, wide = images.shape[-2:]
    scale = SIDE / max(high, wide)
    if scale < 1:
        size = (max(1, round(high * scale)), max(1, round(wide * scale)))
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
    return to_host_bytes(images)
