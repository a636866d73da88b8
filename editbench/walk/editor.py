"""The contract of an editor: it is fitted on the bank's fit and tune splits, and then gives steps.

The engine (editbench.walk.engine) decodes the codes, lets the judge score the images and stops the
walks. A minimal editor implements `fit` and `step`:

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
# components (omertov/encoder4editing). Step sizes that papers give for that W are multiplied by
# the spread of the current generator's W divided by this value.
FFHQ_W_SPREAD = 9.06


# Samples that the teacher scores together during a fit, if they fit into memory.
SCORED = 256


@dataclass
class FitData:
    """Everything that an editor may learn from; the test split and the judge are not part of it.

    Teacher and splits contain only the evaluated attributes. A method therefore masks, conditions
    on, searches and tunes by the same attributes that the job is judged by.
    """

    generator: Generator
    teacher: Scorer  # its logits are the labels; `teacher.whole` gives access to its layers
    fit: Split  # to learn from
    tune: Split  # to choose hyperparameters on
    sigma: Tensor  # (width,) standard deviation of each of the teacher's log-odds over the bank
    seed: int  # of the method's own random draws
    batch: int = SCORED  # largest number of samples that are decoded together

    @property
    def attributes(self) -> Attributes:
        """The evaluated attributes, the only ones that a method may protect, condition on or
        search by."""
        return self.teacher.attributes

    @cached_property
    def batches(self) -> Batches:
        """Runs work that decodes samples in batches that fit into memory."""
        return Batches(self.batch, "fit", self.generator)

    def spread(self, space: Space) -> float:
        """Root-mean-square distance of the fit codes from their mean."""
        codes = self.fit.codes(space)
        return (codes - codes.mean(0)).square().sum(1).mean().sqrt().item()

    def step_size(self, delta: float, space: Space) -> float:
        """Scale a paper's step size to this generator, by the ratio of the spreads.

        Args:
            delta: step in units of StyleGAN2-FFHQ's W.
            space: the space that the editor walks in.
        """
        return delta * self.spread(space) / FFHQ_W_SPREAD

    def latents(self, split: Split) -> Tensor:
        """The samples' own codes, from which walks start in every space.

        Args:
            split: of the bank.

        Returns:
            (n, d) w, or z if the generator has no W.
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
        # A tensor made in inference mode cannot be used in a later backward pass; a copy can.
        return torch.cat(parts).clone()


@dataclass
class FitReport:
    """What a fit cost and what it found."""

    # Samples of the splits whose logits the fit read. Samples that the teacher scores during the
    # fit are counted by the harness and must not be included.
    labels: int = 0
    notes: dict[str, object] = field(default_factory=dict)  # for the record; JSON must hold them

    def has_count(self) -> bool:
        """Whether `labels` is a non-negative integer."""
        # No isinstance check: True is an int too, and a tensor of one number compares like one.
        return type(self.labels) is int and self.labels >= 0


@dataclass(frozen=True)
class DirectionSet:
    """All directions that a method chooses from, if they are the same for every sample.

    Args:
        names: (K,) names of the directions, in the method's own order.
        strengths: positive strengths at which the method itself tries a direction, with both signs.
        unit: of the strengths.
        space: space of the codes that an edit starts from: Z, W or S.
        tensors: name -> (K, ...) tensor that the edits need.
        details: further facts that the edits need, as JSON can hold them.
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
        """The first `count` directions; all of them if there are fewer or `count` is None."""
        tensors = {name: tensor[:count] for name, tensor in self.tensors.items()}
        return replace(self, names=self.names[:count], tensors=tensors)


@dataclass
class Walk:
    """n samples that are being edited, all for the same target attribute."""

    attribute: str
    start: Tensor  # (n,) bank indices
    origin: Tensor  # (n, ...) codes at step 0, in the editor's space
    codes: Tensor  # (n, ...) codes now
    source: Tensor  # (n,) classes at step 0
    target: Tensor  # (n,) target classes
    steps: int = 0  # number of steps made so far
    # (n, d) the samples' own w (z if the generator has no W), whatever the space of the walk.
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

    space: Space = Space.W  # the space that the editor walks in
    unit: str = "W units"  # of the length of a step
    citation: str = ""
    # Of `__init__`; the default is for a class of one's own that does not call it.
    layers: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None
    # The job's generator and teacher, set by `bind`.
    _generator: Generator | None = None
    _teacher: Scorer | None = None

    def __init__(
        self, layers: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None
    ) -> None:
        """Choose the rows of W+ that are edited; the walk itself stays in W.

        Args:
            layers: half-open range of rows [a, b): one pair for all attributes, or attribute ->
                pair. None edits every row.
        """
        self.layers = layers

    # -- to implement
    @abc.abstractmethod
    def fit(self, data: FitData) -> FitReport:
        """Learn what all attributes share; must be deterministic given `data.seed`."""

    @abc.abstractmethod
    def step(self, walk: Walk) -> Tensor:
        """Compute the next codes of the samples of a walk.

        Each row must depend only on its own sample, because samples leave the batch when they
        cross.

        Args:
            walk: n samples; must not be changed in place.

        Returns:
            (n, ...) codes with the shape, dtype and device of `walk.codes`.
        """

    def tune(self, data: FitData, attribute: str) -> FitReport:
        """Learn or choose what is specific to one attribute, on the tune split; optional.

        Args:
            data: that `fit` had.
            attribute: name of the target attribute.

        Returns:
            What the tuning cost, in addition to the fit.
        """
        return FitReport()

    def class_scores(self, data: FitData, attribute: str) -> Tensor | None:
        """Score the tune split with the classifier or direction that was fitted; optional.

        The scores are, for example, the logits of a latent classifier or the coordinates of the
        codes along the direction to each class. The harness compares them with the teacher's
        labels, and the record reports how well they rank the samples (AUC). An editor cannot work
        better than what it has learned.

        Args:
            data: the codes of its tune split are scored. Its logits are NaN, since they hold the
                labels.
            attribute: whose classes are scored.

        Returns:
            (n, K) scores, one column per class, on any scale; higher means that the class is more
            likely. None if the fit learned no such scores.
        """
        return None

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        """Check whether this editor can do the job; called before the fit and after it.

        Args:
            generator: of the job.
            attributes: the evaluated attributes.
            attribute: the target attribute.

        Raises:
            Unsupported: it cannot. The message is the reason, and the job is recorded as skipped.
            NoControl: the fit searched for an edit and found none. The job is recorded as skipped,
                and counts as a failure on every start.
            UnknownName: an option names an attribute that does not exist.
            EditbenchError: an option has a wrong value.
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
        """A remedy for a generator that lacks the editor's space, for the message; '' if there is
        none."""
        if Space.Z not in generator.spaces or self.space not in (Space.W, Space.W_PLUS):
            return ""
        # Editors that can walk in Z or W have an option `space`.
        if "space" not in inspect.signature(type(self)).parameters:
            return ""
        return "; method.space=z would serve"

    def state(self) -> dict[str, Tensor]:
        """The fitted state as a flat mapping of tensors, from which `load_state` restores it."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 - may be empty
        """Restore what `state` returned; an editor without state need not override this."""

    def fixed_directions(self, data: FitData) -> DirectionSet:
        """Find all directions that the editor chooses from, as its fit does; optional.

        For editors whose edits are straight lines that do not depend on the sample. The editor need
        not be fitted. An editor that implements this must implement `apply_direction` too.

        Args:
            data: as for `fit`; the result must be deterministic given `data.seed`.

        Raises:
            Unsupported: the editor has no such set.
        """
        raise Unsupported(f"{type(self).__name__} has no fixed set of directions")

    def apply_direction(
        self, found: DirectionSet, place: int, strength: float, codes: Tensor
    ) -> Codes:
        """Edit samples along one of the fixed directions and return the codes to decode.

        Args:
            found: from `fixed_directions` of an editor with the same options.
            place: index of the direction, 0 to K - 1.
            strength: signed, in `found.unit`; 0 leaves the samples unchanged.
            codes: (n, d) codes of the samples, in `found.space`.

        Returns:
            n codes.

        Raises:
            Unsupported: the editor has no such set.
        """
        raise Unsupported(f"{type(self).__name__} has no fixed set of directions")

    # -- provided
    def bind(self, generator: Generator, teacher: Scorer | None = None) -> None:
        """Set the job's generator and teacher; the harness calls this before any other method.

        Args:
            generator: whose W+ is edited.
            teacher: for steps that ask it, see `need_teacher`.
        """
        self._generator = generator
        self._teacher = teacher

    @property
    def num_ws(self) -> int:
        """Number of rows of the generator's W+; 0 if it has no W+ or the editor is not bound."""
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

    def need_teacher(self) -> Scorer:
        """The teacher of the job, for a `step` that asks it or follows its gradient.

        The samples that it scores count as labels, in a step as in a fit. Steps are made without
        gradients: use `torch.enable_grad()` where one is needed.

        Raises:
            EditbenchError: `bind` was called without a teacher.
        """
        if self._teacher is None:
            raise EditbenchError(
                f"{type(self).__name__} asks the teacher but has none: call "
                "editor.bind(generator, teacher) first"
            )
        return self._teacher

    @classmethod
    def has_directions(cls) -> bool:
        """Whether the editor has a fixed set of directions."""
        return cls.fixed_directions is not Editor.fixed_directions

    def rows(self, attribute: str) -> tuple[int, int] | None:
        """Half-open range of the W+ rows that are edited for an attribute; None for all rows."""
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
        """The codes that the engine decodes; at step 0 they must be exactly those of the start.

        Args:
            walk: n samples.

        Returns:
            n codes: in the editor's space, or in W+ if only some rows are edited.

        Raises:
            EditbenchError: the editor edits weights (THETA) and does not override this method.
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
        # Rows outside the range keep the start's codes; the others take those of the walk.
        first, last = rows
        w_plus = origin.clone()
        w_plus[:, first:last] = moved[:, first:last]
        return Codes(Space.W_PLUS, w_plus)
