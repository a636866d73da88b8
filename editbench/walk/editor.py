"""The contract of an editor: fit on the fit and tune splits, then walk. The engine decodes, judges and stops.

A minimal editor implements `fit` and `step`:

    class Mean(Editor):
        '''Difference of class means in W.'''
        def fit(self, data):
            w, labels = data.fit.codes(Space.W), data.attributes.labels(data.fit.logits)
            ...
            return FitReport(labels=len(w))
        def step(self, walk):
            return walk.codes + self.delta * self.direction[walk.target]
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from editbench.bank.bank import Split
from editbench.base.attributes import Attributes
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer

# Root-mean-square distance of StyleGAN2-FFHQ W codes from their mean, from 80 published principal components
# (omertov/encoder4editing). Step sizes that papers give for that W are scaled by the spread of the W at hand over this.
FFHQ_W_SPREAD = 9.06


@dataclass
class FitData:
    """All an editor may learn from: never the test split, never the judge.

    `sigma` (width,) is the standard deviation of each of the teacher's log-odds over the bank.
    """

    generator: Generator
    teacher: Scorer
    fit: Split
    tune: Split
    sigma: Tensor
    seed: int

    @property
    def attributes(self) -> Attributes:
        return self.teacher.attributes

    def spread(self, space: Space) -> float:
        """Root-mean-square distance of the fit codes from their mean."""
        codes = self.fit.codes(space)
        return (codes - codes.mean(0)).square().sum(1).mean().sqrt().item()

    def step_size(self, delta: float, space: Space) -> float:
        """A step that a paper gives in units of StyleGAN2-FFHQ's W, carried over by the ratio of the spreads."""
        return delta * self.spread(space) / FFHQ_W_SPREAD

    def latents(self, split: Split) -> Tensor:
        """The samples' own codes, from which walks start in every space: w, or z of a generator without W."""
        return split.codes(Space.W if Space.W in self.generator.spaces else Space.Z)

    def score(self, codes: Codes, batch: int = 256) -> Tensor:
        """Teacher logits (N, width) of decoded codes, without gradients."""
        with torch.inference_mode():
            parts = [
                self.teacher(self.generator.decode(codes[i : i + batch]))
                for i in range(0, len(codes), batch)
            ]
        return torch.cat(parts).clone()


@dataclass
class FitReport:
    """What a fit cost and what it found, and remarks for the record.

    labels: samples of the splits whose logits it read; those that it has the teacher score are counted by the harness.
    """

    labels: int = 0
    notes: dict[str, object] = field(default_factory=dict)


@dataclass
class Walk:
    """Samples under way, all towards one attribute.

    start (n,) bank indices; origin and codes (n, ...) in the editor's space at step 0 and now; source and target (n,)
    classes; steps: how many were made; latent (n, w_dim): the samples' own w (z where there is no W), whatever the
    space of the walk.
    """

    attribute: str
    start: Tensor
    origin: Tensor
    codes: Tensor
    source: Tensor
    target: Tensor
    steps: int = 0
    latent: Tensor | None = None

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, keep: Tensor | slice) -> Walk:
        part = {
            name: getattr(self, name)[keep]
            for name in ("start", "origin", "codes", "source", "target")
        }
        return replace(self, **part, latent=None if self.latent is None else self.latent[keep])


class Editor(abc.ABC):
    """Base of all editors.

    Args:
        layers: rows [a, b) of W+ that the edit reaches (the path itself stays in W), one pair for all attributes or a
            mapping from attribute to pair; None edits every row.
    """

    space: Space = Space.W
    unit: str = "W units"
    citation: str = ""
    num_ws: int = 0  # rows of the generator's W+, set before the fit

    def __init__(
        self, layers: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None
    ) -> None:
        self.layers = layers

    # -- to implement -----------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def fit(self, data: FitData) -> FitReport:
        """Learn whatever serves all attributes. Deterministic in data.seed."""

    @abc.abstractmethod
    def step(self, walk: Walk) -> Tensor:
        """Next codes (n, ...) of the samples of a walk. May depend on each sample alone, not on its neighbours."""

    def tune(self, data: FitData, attribute: str) -> FitReport:
        """Optional: choose what belongs to one attribute, on the tune split."""
        return FitReport()

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        """Raise Unsupported with a reason where this editor cannot serve; the job is then recorded as skipped."""
        if self.space not in generator.spaces:
            raise Unsupported(
                f"needs {self.space.name} codes; the generator has "
                f"{', '.join(s.name for s in generator.spaces)}"
            )
        rows = self.rows(attribute)
        if rows is not None:
            if self.space not in (Space.W, Space.W_PLUS) or Space.W_PLUS not in generator.spaces:
                raise Unsupported(
                    "a layer range needs a generator with W+ and an editor that walks in W or W+"
                )
            if not 0 <= rows[0] < rows[1] <= generator.num_ws:
                raise EditbenchError(
                    f"layers [{rows[0]}, {rows[1]}) lie outside the generator's rows "
                    f"[0, {generator.num_ws}): change method.layers"
                )

    def state(self) -> dict[str, Tensor]:
        """Fitted state as flat named tensors, enough for `load_state` to restore the editor."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 - an editor without state needs none
        """Restore what `state` gave."""

    # -- provided ---------------------------------------------------------------------------------------------------
    def rows(self, attribute: str) -> tuple[int, int] | None:
        """The half-open range of W+ rows the edit of an attribute reaches, or None for all."""
        layers = self.layers.get(attribute) if isinstance(self.layers, Mapping) else self.layers
        return None if layers is None else (int(layers[0]), int(layers[1]))

    def codes(self, walk: Walk) -> Codes:
        """What the engine decodes: at step 0 exactly the start. An editor of the weights (THETA) must say it itself."""
        if self.space == Space.THETA:
            raise EditbenchError(
                f"{type(self).__name__} walks in THETA and must override `codes`: give the latent's "
                "Codes with a WeightShift"
            )
        rows = self.rows(walk.attribute)
        if rows is None:
            return Codes(self.space, walk.codes)
        if self.space == Space.W:
            w_plus, moved = (
                walk.origin.unsqueeze(1).repeat(1, self.num_ws, 1),
                walk.codes.unsqueeze(1),
            )
        else:
            w_plus, moved = walk.origin.clone(), walk.codes[:, rows[0] : rows[1]]
        w_plus[:, rows[0] : rows[1]] = moved
        return Codes(Space.W_PLUS, w_plus)


def unit_rows(x: Tensor, eps: float = 1e-12) -> Tensor:
    """Rows of x (..., d) at unit Euclidean length; a zero row stays zero."""
    return x / x.norm(dim=-1, keepdim=True).clamp_min(eps)
