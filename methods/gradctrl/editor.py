"""GradCtrl: a walk along the gradient of a small latent classifier.

The walk does not change the channels that other attributes depend on.
Chen et al., "Exploring Gradient-based Multi-directional Controls in GANs", 2022, eq. (3) and
Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from editbench.base import seeding
from editbench.base.attributes import Attribute, Attributes, log_odds_of_classes
from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.spaces import Space
from editbench.base.validation import check_at_least, check_choice
from editbench.methods.gradctrl.exclusion import (
    FFHQ_EXCLUDE,
    FFHQ_LAYERS,
    FFHQ_ROWS,
    Exclude,
    check_names,
    excluded_channels,
    parse_exclude,
    scaled_count,
)
from editbench.methods.gradctrl.latent_classifier import (
    Examples,
    LatentClassifier,
    balanced,
    load_heads,
    train,
)
from editbench.methods.shared.examples import (
    class_counts,
    class_log_odds,
    empty_class,
    example_order,
    extreme_examples,
    random_examples,
)
from editbench.methods.shared.latent_editor import LatentEditor
from editbench.methods.shared.layer_choice import (
    RANGES_OF,
    check_tuned,
    choose_layers,
    layers_state,
    load_layers,
    scale_ranges,
)
from editbench.methods.shared.meta_validation import score_choices
from editbench.methods.shared.state import group, prefixed
from editbench.networks.generator import Generator
from editbench.walk.editor import FFHQ_W_SPREAD, FitData, FitReport, Walk

VALIDATION = 2000  # largest number of tune samples used for early stopping of the classifiers
PARTS = ("weight1", "bias1", "weight2", "bias2")
# The counts that the paper tries for 512 channels (section 4), and the one it calls a good default.
COUNTS = (50, 100, 150, 200, 250)
DEFAULT_COUNT = 100


class GradCtrl(LatentEditor):
    """next = codes + step * unit(masked gradient), by eq. (3) and Algorithm 1.

    Gradient and mask are recomputed at the current codes in every step, so the path is curved.

    Args:
        n_per_class: number of training examples per class (the paper: 30).
        selection: 'extremes', the most confident of `pool` candidates by the teacher's log-odds;
            or 'random', the same number per class drawn from the fit split. The default follows the
            published code, which trains on the top and bottom 5 % of its samples. With 'random',
            an attribute is supported if each of its classes has `n_per_class` samples.
        pool: number of candidates; None takes 20 per example, so that the extremes are about the
            5 % of the published code.
        exclude: number of channels excluded for every other attribute, out of 512 channels (scaled
            in proportion for other widths); or target -> {other: count}; or 'ffhq', the published
            code's own table (for a target outside the table every channel moves, and a note of the
            fit says so).
        tune_exclusion: choose one count out of 50..250 for each target on 30 tune samples, scored
            by the teacher.
        ties: see editbench.methods.gradctrl.exclusion.excluded_channels.
        multiclass: see editbench.methods.gradctrl.exclusion.excluded_channels.
        objective: for several classes, 'log_softmax' (or 'probability', which has the same unit
            direction) or 'logit', the class's own logit. A binary attribute always follows its
            logit, which is the direction of its probability too.
        delta: see LatentEditor (the paper: 0.6).
        scale_step: see LatentEditor.
        hold_out: share of the examples that is held out for early stopping (the published code:
            0.3). With 0, training is stopped on the first VALIDATION tune samples, with all classes
            weighted equally.
        epochs: largest number of epochs of the classifiers' training.
        space: 'w' or 'z'.
        heads: file of published heads, used instead of a fit; see latent_classifier.load_heads.
        head_attributes: attributes of the heads, in order.
        head_signs: +1 or -1 for each head, for scorers that flip an attribute.
        layers: as in Editor; or 'ffhq', the published code's own table for StyleGAN2-FFHQ at 1024
            pixels, scaled in proportion to the rows of one at 256 or 512 pixels (without W+ the
            whole code moves); or 'tuned', by editbench.methods.shared.layer_choice.

    Raises:
        EditbenchError: an option is out of its range or unknown.
    """

    citation = "Chen, Jiang, Duke, Zhao & Aarabi: GradCtrl, ECCV 2022"

    def __init__(
        self,
        n_per_class: int = 30,
        selection: str = "extremes",
        pool: int | None = None,
        exclude: Exclude = 100,
        tune_exclusion: bool = False,
        ties: str = "exact",
        multiclass: str = "max",
        objective: str = "log_softmax",
        delta: float = 0.6,
        scale_step: bool = True,
        hold_out: float = 0.0,
        epochs: int = 500,
        space: str = "w",
        heads: str | None = None,
        head_attributes: Sequence[str] = (),
        head_signs: Sequence[int] | None = None,
        layers: str | tuple[int, int] | Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        self.tune_layers = layers == "tuned"
        self.published_layers = layers == "ffhq"
        if isinstance(layers, str):
            check_choice("layers", layers, ("ffhq", "tuned"))
            # 'tuned' starts without ranges; `tune` adds one for each attribute.
            layers = {}
        super().__init__(delta, scale_step, space, layers)
        if n_per_class < 1 or epochs < 0:
            raise EditbenchError(
                f"n_per_class={n_per_class} must be at least 1 and epochs={epochs} at least 0"
            )
        if not 0 <= hold_out < 1:
            raise EditbenchError(f"hold_out={hold_out} must be in [0, 1)")
        for key, given in (("head_attributes", head_attributes), ("head_signs", head_signs)):
            if given and not heads:
                raise EditbenchError(
                    f"method.{key}={list(given)} describes a file of heads: set method.heads"
                )
        self.n_per_class = n_per_class
        self.hold_out = float(hold_out)
        if pool is None:
            pool = 20 * n_per_class
        check_at_least("pool", pool, 1)
        self.pool = pool
        self.epochs = epochs
        check_choice("selection", selection, ("extremes", "random"))
        self.selection = selection
        check_choice("ties", ties, ("exact", "all"))
        self.ties = ties
        check_choice("multiclass", multiclass, ("max", "predicted"))
        self.multiclass = multiclass
        check_choice("objective", objective, ("log_softmax", "probability", "logit"))
        self.objective = objective
        self.published_exclude = exclude == "ffhq"
        self.exclude = parse_exclude(exclude)
        self.tune_exclusion = tune_exclusion
        self.head_file = heads
        self.head_attributes = tuple(head_attributes)
        self.head_signs = head_signs
        self.classifier: LatentClassifier | None = None
        self.ordered: set[str] = set()
        self.counts: dict[str, Tensor] = {}  # fit samples in each class, of attributes to be fitted
        self.tuned: dict[str, int] = {}  # name -> count for 512 channels, with `tune_exclusion`

    # -- fit ------------------------------------------------------------------
    def fit(self, data: FitData) -> FitReport:
        self.tuned = {}
        self.counts = {}
        self.set_length(data)
        # Classes of these attributes are visited one after the other.
        self.ordered = {item.name for item in data.attributes if item.ordered}
        report = self._load_heads(data) if self.head_file else self._train_heads(data)
        report.notes["step"] = self.length
        report.notes |= self._table_notes(data.generator)
        return report

    def _table_notes(self, generator: Generator) -> dict[str, object]:
        """Notes on what the published tables do not cover."""
        notes: dict[str, object] = {}
        # A tuned count replaces the table.
        if self.published_exclude and not self.tune_exclusion:
            outside = [name for name in self._fitted().names if name not in FFHQ_EXCLUDE]
            if outside:
                notes["exclude"] = (
                    f"the published table has no {', '.join(outside)}: no channel is left alone "
                    "for them"
                )
        if self.published_layers:
            if Space.W_PLUS not in generator.spaces:
                notes["layers"] = "the generator has no W+: the whole code moves"
            elif generator.num_ws != RANGES_OF:
                notes["layers"] = (
                    f"the published table is of {RANGES_OF} rows of W+: in proportion for "
                    f"{generator.num_ws}"
                )
        return notes

    def _load_heads(self, data: FitData) -> FitReport:
        """Read the published heads, and keep those of the evaluated attributes."""
        self.classifier = load_heads(str(self.head_file), self.head_attributes, self.head_signs)
        if self.classifier.dim != data.generator.code_dim(self.space):
            raise BadFile(
                f"{self.head_file}: heads for {self.classifier.dim} channels, but the generator "
                f"has {data.generator.code_dim(self.space)} in {self.space.name}"
            )
        for name, width in zip(self.classifier.names, self.classifier.widths):
            if name in data.attributes.names and data.attributes[name].width != width:
                raise BadFile(
                    f"{self.head_file}: head '{name}' has {width} outputs, the scorer's attribute "
                    f"has {data.attributes[name].width}"
                )
        # The head of an attribute that is not evaluated would mask channels needlessly.
        heads = self.classifier.heads
        kept = {name: head for name, head in heads.items() if name in data.attributes.names}
        if not kept:
            raise Unsupported(
                f"no head is of an evaluated attribute: the heads are {', '.join(heads)}"
            )
        self.classifier = LatentClassifier(kept)
        return FitReport(notes={"heads": str(self.head_file)})

    def _train_heads(self, data: FitData) -> FitReport:
        """Train one small classifier for each attribute whose classes all have enough examples."""
        attributes = data.attributes
        names = []
        for name in attributes.names:
            self.counts[name] = class_counts(data, name).cpu()
            if not self._too_few(attributes[name]):
                names.append(name)
        if not names:
            raise Unsupported(f"no attribute has enough examples; {self._too_few(attributes[0])}")
        # Codes are scaled to the spread of the paper's W, which suits Adam's step; undone below.
        scale = FFHQ_W_SPREAD / data.spread(self.space)
        training, held_out, looked, notes = self._examples(data, names, scale)
        validation = held_out
        if not self.hold_out:
            validation = self._tune_examples(data, names, scale)
            looked += validation.labels.shape[1]
        self.classifier, trained = train(
            names,
            [attributes[name].width for name in names],
            training,
            validation,
            data.seed,
            self.epochs,
        )
        # The heads were trained on scale * w. With the factor in the first layer they take w.
        heads = {}
        for name, head in self.classifier.heads.items():
            heads[name] = (head[0] * scale, *head[1:])
        self.classifier = LatentClassifier(heads)
        return FitReport(labels=looked, notes=notes | trained)

    def _examples(
        self, data: FitData, names: Sequence[str], scale: float
    ) -> tuple[Examples, Examples, int, dict[str, object]]:
        """Choose the training examples of the attributes, and the held-out examples.

        Args:
            data: the fit split and its labels.
            names: A attributes.
            scale: factor of the codes.

        Returns:
            training: examples of all attributes.
            held_out: the share `hold_out` of each class, which is not used for training.
            looked: number of labels read.
            notes: about the choice, for the record.
        """
        # One order for all attributes, since labelling a sample labels it for all of them.
        order = example_order(data)
        samples = []  # for each attribute: (m,) positions in the fit split
        classes = []  # (m,)
        held_out = []  # (m,) bool
        looked = 0
        notes: dict[str, object] = {}
        for name in names:
            chosen, labelled = self._choose_examples(data, name, order)
            looked = max(looked, labelled)
            sizes = [len(members) for members in chosen]
            notes[f"examples.{name}"] = sizes
            samples.append(torch.from_numpy(np.concatenate(chosen)))
            classes.append(torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)))
            held_out.append(self._hold_out(name, sizes, data.seed))
        codes = data.fit.codes(self.space)

        def pad(parts: list[Tensor]) -> Tensor:
            return pad_sequence(parts, batch_first=True).to(codes.device)  # (A, largest m)

        # Attributes have different numbers of examples; the padding has weight 0.
        present = pad([torch.ones(len(rows)) for rows in samples])
        is_held_out = pad(held_out)
        training = Examples(
            codes[pad(samples)].float() * scale, pad(classes), present * ~is_held_out
        )
        return training, replace(training, weights=present * is_held_out), looked, notes

    def _choose_examples(
        self, data: FitData, name: str, order: np.ndarray
    ) -> tuple[list[np.ndarray], int]:
        """For each class of an attribute the positions of its examples, and the labels read."""
        labels = data.attributes.labels(data.fit.logits, name)
        if self.selection == "random":
            classes = len(data.attributes[name].classes)
            return random_examples(labels, classes, order, self.n_per_class)
        odds = class_log_odds(data, name)
        return extreme_examples(odds, labels, order, self.n_per_class, self.pool)

    def _hold_out(self, name: str, sizes: Sequence[int], seed: int) -> Tensor:
        """Which examples are held out: (m,) bool, the share `hold_out` of each class.

        Args:
            name: the attribute.
            sizes: number of examples of each class; the examples are sorted by class.
            seed: of the draw.
        """
        parts = []
        for c, size in enumerate(sizes):
            # Each class is split separately, so that both parts contain all classes.
            turn = seeding.rng(seed, "gradctrl", "split", name, c).permutation(size)
            parts.append(torch.from_numpy(turn < int(self.hold_out * size)))
        return torch.cat(parts)

    def _tune_examples(self, data: FitData, names: Sequence[str], scale: float) -> Examples:
        """Tune samples with the teacher's labels, used for early stopping."""
        tune = data.tune.first(VALIDATION)
        codes = tune.codes(self.space).float() * scale
        labels = []
        weights = []
        for name in names:
            own = data.attributes.labels(tune.logits, name)
            labels.append(own)
            # Training has equally many examples per class, so classes are weighted equally here.
            weights.append(balanced(own, len(data.attributes[name].classes)))
        # A view, since all heads share the codes.
        shared = codes.unsqueeze(0).expand(len(names), -1, -1)
        return Examples(shared, torch.stack(labels), torch.stack(weights))

    def tune(self, data: FitData, attribute: str) -> FitReport:
        report = FitReport()
        if attribute not in self._fitted().names:
            return report
        # Rows first, since the count of channels is chosen for the rows that are edited.
        if self.tune_layers:
            labels, notes = choose_layers(self, data, attribute)
            report = FitReport(report.labels + labels, report.notes | notes)
        if self.tune_exclusion:
            labels, notes = self._choose_count(data, attribute)
            report = FitReport(report.labels + labels, report.notes | notes)
        return report

    def _choose_count(self, data: FitData, attribute: str) -> tuple[int, dict[str, object]]:
        """Set tuned[attribute] to the count of COUNTS with the most clean crossings.

        Returns:
            Number of labels read, and notes for the record.
        """

        def apply(count: int) -> None:
            self.tuned[attribute] = count

        scores, looked = score_choices(self, data, attribute, COUNTS, apply)
        # Thirty samples give many ties; a tie goes to the count nearest to the default.
        apply(max(COUNTS, key=lambda count: (scores[count], -abs(count - DEFAULT_COUNT))))
        return looked, {
            f"exclude.{attribute}": self.tuned[attribute],
            f"clean_crossings.{attribute}": scores,
        }

    # -- walk -----------------------------------------------------------------
    def rows(self, attribute: str) -> tuple[int, int] | None:
        if not self.published_layers:
            return super().rows(attribute)
        # The published table is not `layers`, since it may name attributes without a scorer here.
        found = FFHQ_LAYERS.get(attribute)
        if found is None:
            return None
        # Without W+ there are no rows, and the whole code moves.
        return scale_ranges([found], self.num_ws)[0] if self.num_ws else None

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        super().check(generator, attributes, attribute)
        # The published table may name attributes that nobody scores here.
        if not self.published_exclude:
            check_names(self.exclude, attributes, attribute)
        check_tuned(self.tune_layers, generator)
        if self.published_layers and Space.W_PLUS in generator.spaces:
            self._check_table(generator, attribute)
        if self.classifier is not None and attribute not in self.classifier.names:
            reason = ""
            if attribute in self.counts:
                reason = self._too_few(attributes[attribute])
            if not reason:
                known = ", ".join(self.classifier.names)
                reason = f"no latent classifier of '{attribute}': the heads are {known}"
            raise Unsupported(reason)

    def _check_table(self, generator: Generator, attribute: str) -> None:
        """Reject a generator or an attribute that the published table of layers does not cover."""
        if generator.num_ws < FFHQ_ROWS:
            raise Unsupported(
                f"method.layers=ffhq is the published code's table for StyleGAN2-FFHQ, of "
                f"{RANGES_OF} rows of W+ ({FFHQ_ROWS} at 256 pixels); this generator has "
                f"{generator.num_ws}, for which it means nothing: set method.layers to null, to "
                "tuned or to a range"
            )
        if attribute not in FFHQ_LAYERS:
            raise Unsupported(
                f"the published table of layers has no '{attribute}', only "
                f"{', '.join(FFHQ_LAYERS)}: set method.layers to a range or to null"
            )

    def _too_few(self, attribute: Attribute) -> str:
        """Why an attribute has no latent classifier; '' when it has."""
        counts = self.counts[attribute.name]
        # With 'extremes' a small class uses the samples it has; 'random' needs equal numbers.
        if self.selection == "random":
            return empty_class(attribute, counts, self.n_per_class, "method.n_per_class")
        return empty_class(attribute, counts)

    def class_scores(self, data: FitData, attribute: str) -> Tensor | None:
        codes = data.tune.codes(self.space)
        classifier = self._fitted().to(codes.device)
        if attribute not in classifier.names:
            return None
        logits, _ = classifier.forward(codes)
        own = logits[:, classifier.slices[attribute]]
        if own.shape[1] == 1:
            return torch.cat([-own, own], 1)
        return log_odds_of_classes(own)

    def _fitted(self) -> LatentClassifier:
        if self.classifier is None:
            raise EditbenchError("GradCtrl was asked to walk before it was fitted")
        return self.classifier

    def excluded(self, target: str) -> dict[str, int]:
        """Number of channels to exclude for each other attribute that has a classifier."""
        classifier = self._fitted()
        uniform = self.tuned.get(target, self.exclude)
        if isinstance(uniform, int):
            counts = dict.fromkeys(classifier.names, uniform)
        else:
            counts = uniform.get(target, {})
        out = {}
        for name, count in counts.items():
            # The published table may name attributes without a classifier here.
            if name in classifier.names and name != target:
                out[name] = scaled_count(count, classifier.dim)
        return out

    def gradient(self, name: str, logits: Tensor, slopes: Tensor, target: Tensor) -> Tensor:
        """Gradient of the objective towards the target class, up to a positive factor per sample.

        For a binary attribute this is the gradient of the signed logit. For several classes it is
        the gradient of the log-odds of class j, which weights the logits by v = e_j - q, with q the
        softmax over the classes other than j. The gradient of log p_j is 1 - p_j times this, and
        that of p_j is p_j (1 - p_j) times this. All three have the same unit direction, but this
        form does not vanish if p_j rounds to 1.

        Args:
            name: the attribute.
            logits: (n, R) of `LatentClassifier.forward`.
            slopes: (n, A, 16) of the same.
            target: (n,) classes.

        Returns:
            (n, d).
        """
        classifier = self._fitted()
        own = logits[:, classifier.slices[name]]
        if own.shape[1] == 1:
            return classifier.pull_back(slopes, name, (2.0 * target - 1).to(own).unsqueeze(1))
        if name in self.ordered:
            # For an ordered attribute, such as the eight views of a car, the walk goes through
            # adjacent classes: towards the neighbour of the currently predicted class.
            seen = own.argmax(1)
            target = torch.where(seen == target, target, seen + (target - seen).sign())
        picked = torch.nn.functional.one_hot(target, own.shape[1]).to(own)
        if self.objective != "logit":
            # q: the softmax with class j masked out.
            picked = picked - own.masked_fill(picked > 0, -torch.inf).softmax(1)
        return classifier.pull_back(slopes, name, picked)

    def step(self, walk: Walk) -> Tensor:
        classifier = self._fitted().to(walk.codes.device)
        if walk.attribute not in classifier.names:
            raise Unsupported(f"no latent classifier of '{walk.attribute}'")
        logits, slopes = classifier.forward(walk.codes)
        gradient = self.gradient(walk.attribute, logits, slopes, walk.target)
        mask = excluded_channels(
            classifier, logits, slopes, self.excluded(walk.attribute), self.ties, self.multiclass
        )
        # Zero if every channel is masked; the sample then does not move.
        direction = F.normalize(gradient * ~mask, dim=-1)
        return walk.codes + (self.length * direction).to(walk.codes)

    # -- state ----------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        classifier = self._fitted()
        out = super().state()
        for k, (name, head) in enumerate(classifier.heads.items()):
            for part, tensor in zip(PARTS, head):
                out[f"head.{name}.{part}"] = tensor.clone()
            # The order of the heads, since a mapping of tensors on disk does not keep it.
            out[f"place.{name}"] = torch.tensor([k, name in self.ordered])
        out |= prefixed("counts", self.counts)
        if self.tune_layers:
            out |= layers_state(self.layers)
        for name, count in self.tuned.items():
            out[f"tuned.{name}"] = torch.tensor(count)
        return out

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        super().load_state(state)
        places = {name: value.tolist() for name, value in group(state, "place").items()}
        heads = {}
        for name in sorted(places, key=lambda name: places[name][0]):
            heads[name] = [state[f"head.{name}.{part}"] for part in PARTS]
        self.classifier = LatentClassifier(heads)
        self.ordered = {name for name in places if places[name][1]}
        self.counts = group(state, "counts")
        self.tuned = {name: int(value) for name, value in group(state, "tuned").items()}
        if self.tune_layers:
            self.layers = load_layers(state)
