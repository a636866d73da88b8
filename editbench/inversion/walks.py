"""Inverted images as the starts of a job.

Editors are still fitted on the bank; only the starts change. Step 0 is the reconstruction, with the
logits that it has. Where an editor starts depends on its space and on the inversion's:

- From a W inversion, a W editor walks as from any w.
- From a W+ inversion, a W editor walks from the mean of the rows, wbar, and every row of the image
  moves as wbar does: w_plus + (w(t) - w(0)), in the rows that the edit reaches. S editors start from
  the styles of w_plus, editors of the weights keep w_plus under their shift, and W+ editors walk
  w_plus itself.
- A W or W+ code has no z, so Z editors are skipped.
- From a Z inversion every editor starts, from z or from its w.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from editbench.bank.bank import Bank
from editbench.bank.spec import StartsSpec
from editbench.bank.starts import Candidates, Starts, draw_among
from editbench.base.attributes import Attributes
from editbench.base.errors import Unsupported
from editbench.base.files import digest
from editbench.base.spaces import Codes, Space
from editbench.inversion.store import Inversion
from editbench.networks.generator import Generator
from editbench.walk.editor import Editor, FitData, FitReport, Walk


def draw_inverted(spec: StartsSpec, inversion: Inversion, bank: Bank) -> dict[str, Starts]:
    """Draw starts and targets among the inverted images; a start is a row of the inversion's table.

    The draw is seeded by the images and not by how they were inverted, so that inversions into other
    spaces have the same targets.

    Args:
        spec: how many, and how near to a boundary; the images are the candidates.
        inversion: the images.
        bank: whose standard deviations are the unit of distance, with the evaluated attributes.

    Raises:
        EditbenchError: there are fewer images than starts.
    """
    n = len(inversion)
    spec.check_enough(n, len(bank.judge_attributes), "the inverted images", "invert more images")
    images = digest(inversion.meta["identity"])
    candidates = Candidates(
        np.arange(n),
        inversion.logits("judge", bank.judge_attributes),
        bank.sigma["judge"],
        bank.judge_attributes,
        f"{bank.samples_key}/{images}",
    )
    # Without spec.min_quality: who gives pictures of their own has chosen them.
    return draw_among(spec, candidates)


def check_walk(editor: Editor, inversion: Inversion) -> None:
    """Raise Unsupported where an editor cannot start from these codes."""
    if editor.space == Space.Z and inversion.space != Space.Z:
        raise Unsupported(
            f"walks in Z, and images inverted into {inversion.space.name} have no z: set "
            "inversion.space=z"
        )


@dataclass(frozen=True)
class WalkInputs:
    """What a walk starts with.

    Args:
        editor: as the walk sees it.
        generator: as the walk sees it.
        codes: (n, ...) the starts' own latents.
        logits: (n, width) the judge's logits of the starts.
    """

    editor: Editor
    generator: Generator
    codes: Tensor
    logits: Tensor


def prepare_walk(
    editor: Editor,
    generator: Generator,
    attributes: Attributes,
    inversion: Inversion,
    starts: Starts,
    device: str,
) -> WalkInputs:
    """Everything for a walk from inverted images.

    Args:
        editor: of the job, fitted.
        generator: of the job.
        attributes: the evaluated ones.
        inversion: the images.
        starts: rows of the inversion's table.
        device: of the job.
    """
    codes = inversion.codes(starts.index).to(device)
    logits = torch.from_numpy(inversion.logits("judge", attributes)[starts.index]).to(device)
    if inversion.space == Space.W_PLUS:
        return WalkInputs(LayeredEditor(editor, generator), LayeredStarts(generator), codes, logits)
    if inversion.space == Space.Z and generator.start_space(editor.space) == Space.W:
        with torch.no_grad():
            codes = generator.map(codes)
    return WalkInputs(editor, generator, codes, logits)


class LayeredStarts(Generator):
    """A generator whose samples' own latents are W+ (n, num_ws, w_dim): walks begin there."""

    def __init__(self, base: Generator) -> None:
        super().__init__()
        self.base = base
        for name in (
            "spaces",
            "z_dim",
            "w_dim",
            "num_ws",
            "output",
            "digest",
            "layer_names",
            "style_sizes",
            "precision",
        ):
            setattr(self, name, getattr(base, name))

    def decode(self, codes: Codes) -> Tensor:
        return self.base.decode(codes)  # which counts

    def _decode(self, codes: Codes) -> Tensor:
        return self.base._decode(codes)

    def w_plus(self, w: Tensor) -> Tensor:
        return self.base.w_plus(w)

    def styles(self, w_plus: Tensor) -> Tensor:
        return self.base.styles(w_plus)

    def lift(self, latent: Tensor, space: Space) -> Tensor:
        """W: the mean row; W_PLUS: unchanged; S: the styles of w_plus; THETA: zero."""
        if space == Space.THETA:
            return latent.new_zeros(len(latent), 1)
        if space == Space.S:
            return self.styles(latent)
        return latent.clone() if space == Space.W_PLUS else latent.mean(1)


class LayeredEditor(Editor):
    """An editor whose walk of the mean row carries the rows of a W+ start along."""

    def __init__(self, inner: Editor, generator: Generator) -> None:
        super().__init__()
        self.inner = inner
        self.bind(generator)
        inner.bind(generator)
        self.space = inner.space
        self.unit = inner.unit

    def fit(self, data: FitData) -> FitReport:
        return self.inner.fit(data)

    def step(self, walk: Walk) -> Tensor:
        return self.inner.step(self._flat(walk))

    def codes(self, walk: Walk) -> Codes:
        flat = self._flat(walk)
        made = self.inner.codes(flat)
        if self.space not in (Space.W, Space.THETA):
            return made
        if made.space not in (Space.W, Space.W_PLUS):
            raise Unsupported(
                f"decodes {made.space.name} codes, which W+ starts do not have: set inversion.space=w"
            )
        assert walk.latent is not None and flat.latent is not None
        home = self.need_generator().w_plus(flat.latent)
        # An editor of a range of layers gives W+, where the rows that it leaves are those of home.
        whole = made.space == Space.W
        rows = self.need_generator().w_plus(made.values) if whole else made.values
        return Codes(Space.W_PLUS, walk.latent + (rows - home), made.shift)

    def _flat(self, walk: Walk) -> Walk:
        """The walk with one w a sample, as editors expect it: the mean row."""
        assert walk.latent is not None
        return replace(walk, latent=walk.latent.mean(1))


def write_originals(path: Path, inversion: Inversion, starts: Starts) -> None:
    """What is known of the starts' own images: their rows of the inversion's table, with start as in the walk."""
    rows = inversion.table.iloc[starts.index].drop(columns=["block", "row"])
    rows.insert(0, "start", starts.index)
    rows.to_parquet(path, index=False)
