"""Walks that start from inverted images.

Editors are still fitted on the bank; only the starts change. Step 0 is the reconstruction and its
logits. The start depends on the spaces of the editor and of the inversion:

- From a W inversion, a W editor walks as from any w.
- From a W+ inversion, a W editor walks from the mean of the rows, and the change of this mean is
  added to the rows: w_plus + (w(t) - w(0)), in the rows that the edit changes. S editors start from
  the styles of w_plus, editors of the weights shift the weights and keep w_plus, and W+ editors
  start from w_plus itself.
- A W or W+ code has no z, so Z editors are skipped.
- From a Z inversion every editor can start, from z or from its w.
"""

from __future__ import annotations

from dataclasses import replace
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
from editbench.walk.engine import WalkInputs


def draw_inverted(spec: StartsSpec, inversion: Inversion, bank: Bank) -> dict[str, Starts]:
    """Draw starts and targets among the inverted images; a start is a row of the inversion's table.

    The seed depends on the images but not on the inversion, so that inversions into different
    spaces have the same targets.

    Args:
        spec: number of starts, and their distance to the boundaries.
        inversion: the candidate images.
        bank: gives the standard deviations that are the unit of distance, and the evaluated
            attributes.

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
    # spec.min_quality is not applied, since users have chosen their images themselves.
    return draw_among(spec, candidates)


def check_walk(editor: Editor, inversion: Inversion) -> None:
    """Check that an editor can start from the codes of an inversion.

    Args:
        editor: of the job; it need not be fitted.
        inversion: that the walks start from.

    Raises:
        Unsupported: the editor walks in Z, and the images were inverted into another space.
    """
    if editor.space == Space.Z and inversion.space != Space.Z:
        raise Unsupported(
            f"walks in Z, and images inverted into {inversion.space.name} have no z: set "
            "inversion.space=z"
        )


def prepare_walk(
    editor: Editor,
    generator: Generator,
    attributes: Attributes,
    attribute: str,
    inversion: Inversion,
    starts: Starts,
    device: str,
) -> WalkInputs:
    """Prepare a walk from inverted images.

    Args:
        editor: of the job, fitted.
        generator: of the job.
        attributes: the evaluated attributes.
        attribute: the target attribute.
        inversion: the images.
        starts: rows of the inversion's table.
        device: of the job.

    Returns:
        The inputs; editor and generator are wrapped if the images were inverted into W+.
    """
    codes = Codes(inversion.space, inversion.codes(starts.index).to(device))
    logits = torch.from_numpy(inversion.logits("judge", attributes)[starts.index]).to(device)
    editor, generator, latents = adapt_to_codes(editor, generator, codes)
    return WalkInputs(editor, generator, attribute, starts, latents, logits)


def adapt_to_codes(
    editor: Editor, generator: Generator, codes: Codes
) -> tuple[Editor, Generator, Tensor]:
    """What a walk from codes of any space begins with.

    Args:
        editor: fitted.
        generator: of the codes.
        codes: n samples in Z, W or W+; in Z if the editor walks in Z.

    Returns:
        The editor and the generator, wrapped if the codes are in W+, and the samples' latents
        (n, ...), as `begin_walk` takes them.
    """
    if codes.space == Space.W_PLUS:
        return LayeredEditor(editor, generator), LayeredStarts(generator), codes.values
    if codes.space == Space.Z and generator.start_space(editor.space) == Space.W:
        with torch.no_grad():
            return editor, generator, generator.map(codes.values)
    return editor, generator, codes.values


class LayeredStarts(Generator):
    """A generator for walks that start from W+ codes (n, num_ws, w_dim)."""

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
        return self.base.decode(codes)  # the base counts the samples

    def _decode(self, codes: Codes) -> Tensor:
        return self.base._decode(codes)

    def w_plus(self, w: Tensor) -> Tensor:
        return self.base.w_plus(w)

    def styles(self, w_plus: Tensor) -> Tensor:
        return self.base.styles(w_plus)

    def lift(self, latent: Tensor, space: Space) -> Tensor:
        """Convert W+ codes of starts to codes of a space.

        Args:
            latent: (n, num_ws, w_dim), unlike those of other generators.
            space: of the walks.

        Returns:
            W: the mean row (n, w_dim); W_PLUS: a copy; S: the styles; THETA (n, 1): zero.
        """
        if space == Space.THETA:
            return latent.new_zeros(len(latent), 1)
        if space == Space.S:
            return self.styles(latent)
        return latent.clone() if space == Space.W_PLUS else latent.mean(1)


class LayeredEditor(Editor):
    """An editor that walks from the mean row of a W+ start and adds the change to its rows."""

    def __init__(self, inner: Editor, generator: Generator) -> None:
        super().__init__()
        self.inner = inner
        self.bind(generator, inner._teacher)
        inner.bind(generator, inner._teacher)
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
        # An editor of a range of layers returns W+ codes; in its other rows the change is zero.
        whole = made.space == Space.W
        rows = self.need_generator().w_plus(made.values) if whole else made.values
        return Codes(Space.W_PLUS, walk.latent + (rows - home), made.shift)

    def _flat(self, walk: Walk) -> Walk:
        """The walk with one w per sample, as editors expect: the mean of the rows."""
        assert walk.latent is not None
        return replace(walk, latent=walk.latent.mean(1))


def write_originals(path: Path, inversion: Inversion, starts: Starts) -> None:
    """Write the starts' rows of the inversion's table, with `start` as in the walk.

    Args:
        path: of the parquet file.
        inversion: that the walks start from.
        starts: whose `index` are rows of the inversion's table.
    """
    rows = inversion.table.iloc[starts.index].drop(columns=["block", "row"])
    rows.insert(0, "start", starts.index)
    rows.to_parquet(path, index=False)
