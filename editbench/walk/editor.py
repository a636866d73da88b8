"""The contract of an editor: fit on the fit and tune splits, then walk.

The engine decodes, judges and stops (editbench.walk.engine). A minimal editor implements `fit` and
`step`:

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
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from editbench.bank.bank import Split
from editbench.base.attributes import Attributes
from editbench.base.batches import Batches
from editbench.base.errors import EditbenchError, Unsupported
from editbench.base.spaces import Codes, Space
from editbench.base.validation import check_attributes
from editbench.networks.generator import Generator
from editbench.networks.scorer import Scorer

# Root-mean-square distance of StyleGAN2-FFHQ W codes from their mean, from 80 published principal
# components (omertov/encoder4editing). Step sizes that papers give for that W are scaled by the
# spread of the W at hand over this.
FFHQ_W_SPREAD = 9.06


# Samples that a fit has the teacher score together, where the memory holds them.
SCORED = 256


@dataclass
class FitData:
    """All that an editor may learn from: never the test split, never the judge.

    Teacher and splits are cut to the evaluated attributes, so that what is masked, conditioned on,
    searched or tuned by is what the job is judged by.
    """

    generator: Generator
    teacher: Scorer  # whose logits are the labels; `teacher.whole` has its layers
    fit: Split  # to learn from
    tune: Split  # to choose hyperparameters on
    sigma: Tensor  # (width,) standard deviation of each of the teacher's log-odds over the bank
    seed: int  # of the method's own randomness
    batch: int = SCORED  # samples that are decoded together, at most

    @property
    def attributes(self) -> Attributes:
        """The evaluated attributes: all that a method may protect, be conditioned on or search by."""
        return self.teacher.attributes

    @cached_property
    def batches(self) -> Batches:
        """Runs work on samples that are decoded, in parts that the memory holds."""
        return Batches(self.batch, "fit", self.generator)

    def spread(self, space: Space) -> float:
        """Root-mean-square distance of the fit codes from their mean."""
        codes = self.fit.codes(space)
        return (codes - codes.mean(0)).square().sum(1).mean().sqrt().item()

    def step_size(self, delta: float, space: Space) -> float:
        """Carry a paper's step over to this generator, by the ratio of the spreads.

        Args:
            delta: step in units of StyleGAN2-FFHQ's W.
            space: where the editor walks.
        """
        return delta * self.spread(space) / FFHQ_W_SPREAD

    def latents(self, split: Split) -> Tensor:
        """The samples' own codes, from which walks start in every space.

        Args:
            split: of the bank.

        Returns:
            (n, d) w, or z of a generator without W.
        """
        return split.codes(self.generator.latent_space)

    def score(self, codes: Codes) -> Tensor:
        """The teacher's logits of decoded codes, without gradients.

        Args:
            codes: (n, ...) in any space of the generator.

        Returns:
            (n, width).
        """
        with torch.inference_mode():
            parts = self.batches.run(
                len(codes), lambda rows: self.teacher(self.generator.decode(codes[rows]))
            )
        # A tensor made in inference mode cannot take part in a later derivative; a copy can.
        return torch.cat(parts).clone()


@dataclass
class FitReport:
    """What a fit cost and what it found."""

    # Samples of the splits whose logits the fit read. The harness counts those that the fit has the
    # teacher score, so they are not in here.
    labels: int = 0
    notes: dict[str, object] = field(default_factory=dict)  # for the record, as JSON holds them

    def has_count(self) -> bool:
        """Whether `labels` is a whole number that is not negative."""
        # Not isinstance: True is an int, and a tensor of one number compares like one.
        return type(self.labels) is int and self.labels >= 0


@dataclass(frozen=True)
class DirectionSet:
    """All directions of a method that are the same for every sample, before any of them is chosen.

    Args:
        names: (K,) what they are called, in the method's own order.
        strengths: positive; the sizes at which the method itself looks at a direction, both ways.
        unit: of the strengths.
        space: of the samples' codes that an edit starts from; Z, W or S.
        tensors: what the edits need, name -> (K, ...).
        details: what else they need, as JSON holds it.
    """

    names: tuple[str, ...]
    strengths: tuple[float, ...]
    unit: str
    space: Space
    tensors: dict[str, Tensor]
    details: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def first(self, count: int | None) -> DirectionSet:
        """The first `count` of them, or all that there are."""
        tensors = {name: tensor[:count] for name, tensor in self.tensors.items()}
        return replace(self, names=self.names[:count], tensors=tensors)


@dataclass
class Walk:
    """n samples under way, all towards one attribute."""

    attribute: str
    start: Tensor  # (n,) bank indices
    origin: Tensor  # (n, ...) codes at step 0, in the editor's space
    codes: Tensor  # (n, ...) codes now
    source: Tensor  # (n,) classes that the samples leave
    target: Tensor  # (n,) classes that they are sent to
    steps: int = 0  # how many were made
    # (n, d) the samples' own w (z where there is no W), whatever the space of the walk.
    latent: Tensor | None = None

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, keep: Tensor | slice) -> Walk:
        """Some of the samples.

        Args:
            keep: (n,) bool, or indices, or a slice.
        """
        names = ("start", "origin", "codes", "source", "target")
        part = {name: getattr(self, name)[keep] for name in names}
        latent = None if self.latent is None else self.latent[keep]
        return replace(self, **part, latent=latent)


class Editor(abc.ABC):
    """Base of all editors."""

    space: Space = Space.W  # where the editor walks
    unit: str = "W units"  # of the length of a step
    citation: str = ""
    _generator: Generator | None = None  # of the job, which `bind` sets

    def __init__(
        self, layers: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None
    ) -> None:
        """Choose the rows of W+ that the edit reaches; the path itself stays in W.

        Args:
            layers: rows [a, b), one pair for all attributes, or attribute -> pair; None edits
                every row.
        """
        self.layers = layers

    # -- to implement
    @abc.abstractmethod
    def fit(self, data: FitData) -> FitReport:
        """Learn whatever serves all attributes; deterministic in `data.seed`."""

    @abc.abstractmethod
    def step(self, walk: Walk) -> Tensor:
        """Next codes of the samples of a walk.

        A row may depend on its own sample alone: samples leave the batch as they cross.

        Args:
            walk: n samples.

        Returns:
            (n, ...), of the shape, dtype and device of `walk.codes`.
        """

    def tune(self, data: FitData, attribute: str) -> FitReport:
        """Choose what belongs to one attribute, on the tune split; optional."""
        return FitReport()

    def class_scores(self, data: FitData, attribute: str) -> Tensor | None:
        """Scores by which what was fitted tells the classes apart in the tune split; optional.

        The harness compares them with the teacher's labels, and the record says how well they order
        them (AUC): the logits of a latent classifier, or the codes' coordinates along the direction
        to each class. An editor cannot work better than what it learnt.

        Args:
            data: of which the codes of the tune split are scored. Its logits, the answer, are NaN.
            attribute: that is scored.

        Returns:
            (n, K) a column a class, of any scale, higher for what is more likely of the class; or
            None where the fit learnt no such scores.
        """
        return None

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        """Check whether this editor can serve; called before the fit and after it.

        Args:
            generator: of the job.
            attributes: the evaluated ones.
            attribute: that is to be edited.

        Raises:
            Unsupported: it cannot, for a reason; the job is then recorded as skipped.
            UnknownName: an option names an attribute that does not exist.
            EditbenchError: an option is wrong.
        """
        if self.space not in generator.spaces:
            raise Unsupported(
                f"needs {self.space.name} codes; the generator has "
                f"{', '.join(s.name for s in generator.spaces)}{self._remedy(generator)}"
            )
        if isinstance(self.layers, Mapping):
            check_attributes("method.layers", self.layers, attributes.known)
        rows = self.rows(attribute)
        if rows is None:
            return
        if self.space not in (Space.W, Space.W_PLUS) or Space.W_PLUS not in generator.spaces:
            raise Unsupported(
                "a layer range needs a generator with W+ and an editor that walks in W or W+"
            )
        if not 0 <= rows[0] < rows[1] <= generator.num_ws:
            raise EditbenchError(
                f"layers [{rows[0]}, {rows[1]}) lie outside the generator's rows "
                f"[0, {generator.num_ws}): change method.layers"
            )

    def _remedy(self, generator: Generator) -> str:
        """What would make an editor serve a generator that lacks its space; '' where nothing does."""
        if Space.Z not in generator.spaces or self.space not in (Space.W, Space.W_PLUS):
            return ""
        # Editors that walk in either space take it as an option.
        if "space" not in inspect.signature(type(self)).parameters:
            return ""
        return "; method.space=z would serve"

    def state(self) -> dict[str, Tensor]:
        """Fitted state as flat named tensors, enough for `load_state` to restore the editor."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 - may be empty
        """Restore what `state` gave; an editor without state needs none."""

    def fixed_directions(self, data: FitData) -> DirectionSet:
        """All directions that the editor chooses among, found as its fit finds them; optional.

        An editor whose edits are straight lines that do not depend on the sample has them. The
        editor need not be fitted; `apply_direction` goes with this method.

        Args:
            data: as for `fit`; deterministic in `data.seed`.

        Raises:
            Unsupported: the editor has no such set.
        """
        raise Unsupported(f"{type(self).__name__} has no fixed set of directions")

    def apply_direction(
        self, found: DirectionSet, place: int, strength: float, codes: Tensor
    ) -> Codes:
        """What is decoded after an edit along one of the fixed directions.

        Args:
            found: from `fixed_directions` of an editor with the same options.
            place: which direction, 0 to K - 1.
            strength: signed, in `found.unit`; 0 gives the samples as they are.
            codes: (n, d) of the samples, in `found.space`.

        Returns:
            n codes.

        Raises:
            Unsupported: the editor has no such set.
        """
        raise Unsupported(f"{type(self).__name__} has no fixed set of directions")

    # -- provided
    def bind(self, generator: Generator) -> None:
        """Take the generator of the job; the harness does so before it calls anything else.

        Args:
            generator: whose W+ the edits are made in.
        """
        self._generator = generator

    @property
    def num_ws(self) -> int:
        """Rows of the generator's W+; 0 where it has none, or where the editor is not bound."""
        return 0 if self._generator is None else self._generator.num_ws

    def need_generator(self) -> Generator:
        """The generator of the job.

        Raises:
            EditbenchError: `bind` was not called.
        """
        if self._generator is None:
            raise EditbenchError(
                f"{type(self).__name__} edits rows of W+ but has no generator: call "
                "editor.bind(generator) first"
            )
        return self._generator

    @classmethod
    def has_directions(cls) -> bool:
        """Whether the editor has a fixed set of directions."""
        return cls.fixed_directions is not Editor.fixed_directions

    def rows(self, attribute: str) -> tuple[int, int] | None:
        """Half-open range of W+ rows that the edit of an attribute reaches; None for all."""
        layers = self.layers.get(attribute) if isinstance(self.layers, Mapping) else self.layers
        if layers is None:
            return None
        try:
            first, last = layers  # a configuration gives a list
            return (int(first), int(last))
        except (TypeError, ValueError):
            raise EditbenchError(
                f"layers {layers} must be two numbers, [a, b) of the rows of W+: set "
                "method.layers=[a,b], or null for all rows"
            ) from None

    def codes(self, walk: Walk) -> Codes:
        """What the engine decodes; at step 0 it must be exactly the start.

        Args:
            walk: n samples.

        Returns:
            n codes: of the editor's space, or of W+ where the edit reaches some rows only.

        Raises:
            EditbenchError: an editor of the weights (THETA) must override this method.
        """
        if self.space == Space.THETA:
            raise EditbenchError(
                f"{type(self).__name__} walks in THETA and must override `codes`: return the "
                "latent's Codes with a WeightShift"
            )
        rows = self.rows(walk.attribute)
        if rows is None:
            return Codes(self.space, walk.codes)
        origin = walk.origin
        moved = walk.codes
        if self.space == Space.W:
            origin = self.need_generator().w_plus(origin)
            moved = self.need_generator().w_plus(moved)
        # The rows out of reach keep the start's codes, the others take those of the walk.
        first, last = rows
        w_plus = origin.clone()
        w_plus[:, first:last] = moved[:, first:last]
        return Codes(Space.W_PLUS, w_plus)


def unit_rows(x: Tensor, eps: float = 1e-12) -> Tensor:
    """Scale rows to unit Euclidean length; a zero row stays zero.

    Args:
        x: (..., d).
        eps: least length that is divided by.

    Returns:
        (..., d).
    """
    return x / x.norm(dim=-1, keepdim=True).clamp_min(eps)
