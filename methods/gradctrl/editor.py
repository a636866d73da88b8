"""GradCtrl: walk along the gradient of a small latent classifier.

The walk leaves alone the channels that other attributes depend on.
Chen et al., "Exploring Gradient-based Multi-directional Controls in GANs", 2022, eq. (3) and
Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from editbench.base import seeding
from editbench.base.attributes import Attribute, Attributes, log_odds_of_classes
from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.spaces import Space
from editbench.base.validation import check_positive
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
from editbench.methods.gradctrl.tuning import choose_count
from editbench.methods.shared.layer_choice import (
    RANGES_OF,
    check_tuned,
    choose_layers,
    layers_state,
    load_layers,
    scale_ranges,
)
from editbench.methods.shared.selection import (
    choice,
    class_counts,
    class_log_odds,
    empty_class,
    example_order,
    extreme_examples,
    random_examples,
    walk_space,
)
from editbench.methods.shared.state import group, prefixed
from editbench.networks.generator import Generator
from editbench.walk.editor import FFHQ_W_SPREAD, Editor, FitData, FitReport, Walk, unit_rows

VALIDATION = 2000  # tune samples, at most, on which the training of the classifiers is stopped
PARTS = ("weight1", "bias1", "weight2", "bias2")


class GradCtrl(Editor):
    """next = codes + step * unit(masked gradient), by eq. (3) and Algorithm 1.

    Gradient and mask are both taken at the current codes, so that the path bends.

    Args:
        n_per_class: examples of each class (the paper: 30), all of which train.
        selection: 'extremes', the most confident of `pool` candidates by the teacher's log-odds,
            or 'random', as many of each class drawn from the fit split. The default follows the
            published code, which trains on the top and bottom 5 % of its samples. With 'random'
            an attribute is served if each of its classes has `n_per_class` samples.
        pool: candidates; None takes 20 for each wanted example, so that the extremes are about
            those 5 %.
        exclude: channels left alone for every other attribute, for 512 channels (in proportion
            for other widths); or target -> {other: count}; or 'ffhq', the published code's own
            table (of a target outside it every channel moves, which a note of the fit says).
        tune_exclusion: choose one count out of 50..250 for each target on 30 tune samples, scored
            by the teacher.
        ties: see editbench.methods.gradctrl.exclusion.excluded_channels.
        multiclass: see editbench.methods.gradctrl.exclusion.excluded_channels.
        objective: for many classes, 'log_softmax' (also 'probability': the same unit direction)
            or 'logit', the raw row. A binary attribute always follows its logit, which is the
            direction of its probability too.
        delta: step length for StyleGAN2-FFHQ's W (the paper: 0.6).
        scale_step: scale `delta` to the spread of this space.
        hold_out: share of the examples that do not train and on which the training is stopped
            (the published code: 0.3); 0: it is stopped on the first VALIDATION tune samples, where
            every class counts the same.
        epochs: of the classifiers' training, at most.
        space: 'w' or 'z'.
        heads: file of published heads, used instead of a fit; see latent_classifier.load_heads.
        head_attributes: their names, in order.
        head_signs: +1 or -1 for each, for scorers that flip an attribute.
        layers: as in Editor; or 'ffhq', the published code's own table for StyleGAN2-FFHQ of
            1024 pixels, in proportion to the rows of one of 256 or 512 (of a generator without W+
            the whole code moves); or 'tuned', by editbench.methods.shared.layer_choice.

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
            choice("layers", layers, ("ffhq", "tuned"))
            # 'tuned' begins without ranges; `tune` enters one for each attribute.
            layers = {}
        super().__init__(layers)
        check_positive("delta", delta)
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
        self.pool = pool or 20 * n_per_class
        self.epochs = epochs
        self.selection = choice("selection", selection, ("extremes", "random"))
        self.ties = choice("ties", ties, ("exact", "all"))
        self.multiclass = choice("multiclass", multiclass, ("max", "predicted"))
        self.objective = choice("objective", objective, ("log_softmax", "probability", "logit"))
        self.published_exclude = exclude == "ffhq"
        self.exclude = parse_exclude(exclude)
        self.tune_exclusion = tune_exclusion
        self.delta = float(delta)
        self.scale_step = scale_step
        self.space = walk_space(space)
        self.unit = f"{self.space.name} units"
        self.head_file = heads
        self.head_attributes = tuple(head_attributes)
        self.head_signs = head_signs
        self.length = self.delta
        self.classifier: LatentClassifier | None = None
        self.ordered: set[str] = set()
        self.counts: dict[str, Tensor] = {}  # fit samples in each class, of attributes to be fitted
        self.tuned: dict[str, int] = {}

    # -- fit ------------------------------------------------------------------
    def fit(self, data: FitData) -> FitReport:
        attributes = data.attributes
        self.tuned = {}
        self.counts = {}
        self.length = data.step_size(self.delta, self.space) if self.scale_step else self.delta
        # Their classes are walked one after the other.
        self.ordered = {item.name for item in attributes if item.ordered}
        report = self._load(data) if self.head_file else self._train(data)
        report.notes["step"] = self.length
        # A tuned count takes the place of the table.
        if self.published_exclude and not self.tune_exclusion:
            outside = [name for name in self._fitted().names if name not in FFHQ_EXCLUDE]
            if outside:
                report.notes["exclude"] = (
                    f"the published table has no {', '.join(outside)}: no channel is left alone "
                    "for them"
                )
        if self.published_layers:
            if Space.W_PLUS not in data.generator.spaces:
                report.notes["layers"] = "the generator has no W+: the whole code moves"
            elif data.generator.num_ws != RANGES_OF:
                report.notes["layers"] = (
                    f"the published table is of {RANGES_OF} rows of W+: in proportion for "
                    f"{data.generator.num_ws}"
                )
        return report

    def _load(self, data: FitData) -> FitReport:
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
        # A head of an attribute that is not evaluated would mask channels for nothing.
        heads = self.classifier.heads
        kept = {name: head for name, head in heads.items() if name in data.attributes.names}
        if not kept:
            raise Unsupported(
                f"no head is of an evaluated attribute: the heads are {', '.join(heads)}"
            )
        self.classifier = LatentClassifier(kept)
        return FitReport(notes={"heads": str(self.head_file)})

    def _train(self, data: FitData) -> FitReport:
        """Train one small classifier for each attribute whose classes all have enough examples."""
        attributes = data.attributes
        names = []
        for name in attributes.names:
            self.counts[name] = class_counts(data, name).cpu()
            if not self._too_few(attributes[name]):
                names.append(name)
        if not names:
            raise Unsupported(f"no attribute has enough examples; {self._too_few(attributes[0])}")
        # Adam's step suits the spread of the paper's W; undone below
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
        # The heads saw scale * w: the factor goes into the first layer, and they take w itself.
        heads = {}
        for name, head in self.classifier.heads.items():
            heads[name] = (head[0] * scale, *head[1:])
        self.classifier = LatentClassifier(heads)
        return FitReport(labels=looked, notes=notes | trained)

    def _examples(
        self, data: FitData, names: Sequence[str], scale: float
    ) -> tuple[Examples, Examples, int, dict[str, object]]:
        """The examples of the attributes, and those of them that are held out.

        Args:
            data: the fit split and its labels.
            names: A attributes.
            scale: of the codes.

        Returns:
            training: of all attributes.
            held_out: the share `hold_out` of each class, which does not train.
            looked: labels that were read.
            notes: what the record says of the choice.
        """
        attributes = data.attributes
        # One order for all attributes: a sample that is labelled once is labelled for all.
        order = example_order(data)
        samples = []
        classes = []
        held = []
        looked = 0
        notes: dict[str, object] = {}
        for name in names:
            labels = attributes.labels(data.fit.logits, name)
            if self.selection == "random":
                chosen, labelled = random_examples(
                    labels, len(attributes[name].classes), order, self.n_per_class
                )
            else:
                chosen, labelled = extreme_examples(
                    class_log_odds(data, name), labels, order, self.n_per_class, self.pool
                )
            looked = max(looked, labelled)
            sizes = [len(members) for members in chosen]
            notes[f"examples.{name}"] = sizes
            out = []
            for c, size in enumerate(sizes):
                # Each class is split by itself, so that both sides hold all classes.
                turn = seeding.rng(data.seed, "gradctrl", "split", name, c).permutation(size)
                out.append(torch.from_numpy(turn < int(self.hold_out * size)))
            held.append(torch.cat(out))
            samples.append(torch.from_numpy(np.concatenate(chosen)))
            classes.append(torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)))
        codes = data.fit.codes(self.space)
        # Attributes differ in their number of examples: padded, with weight 0 there.
        index = pad_sequence(samples, batch_first=True).to(codes.device)  # (A, m) of the fit split
        there = pad_sequence([torch.ones(len(s)) for s in samples], batch_first=True)
        there = there.to(codes.device)
        aside = pad_sequence(held, batch_first=True).to(codes.device)
        training = Examples(
            codes[index].float() * scale,
            pad_sequence(classes, batch_first=True).to(codes.device),
            there * ~aside,
        )
        return training, replace(training, weights=there * aside), looked, notes

    def _tune_examples(self, data: FitData, names: Sequence[str], scale: float) -> Examples:
        """Tune samples with the teacher's labels, on which the training is stopped."""
        tune = data.tune.first(VALIDATION)
        codes = tune.codes(self.space).float() * scale
        labels = []
        weights = []
        for name in names:
            own = data.attributes.labels(tune.logits, name)
            labels.append(own)
            # The examples are as many of each class, so that a rare class counts as much here.
            weights.append(balanced(own, len(data.attributes[name].classes)))
        # A view: all heads share the codes.
        shared = codes.unsqueeze(0).expand(len(names), -1, -1)
        return Examples(shared, torch.stack(labels), torch.stack(weights))

    def tune(self, data: FitData, attribute: str) -> FitReport:
        report = FitReport()
        # Rows before channels: the count is chosen for the rows that the edit will reach.
        if self.tune_layers and attribute in self._fitted().names:
            labels, notes = choose_layers(self, data, attribute)
            report = FitReport(report.labels + labels, report.notes | notes)
        if self.tune_exclusion and attribute in self._fitted().names:
            labels, notes = choose_count(self, self.tuned, data, attribute)
            report = FitReport(report.labels + labels, report.notes | notes)
        return report

    # -- walk -----------------------------------------------------------------
    def rows(self, attribute: str) -> tuple[int, int] | None:
        if not self.published_layers:
            return super().rows(attribute)
        # The published table may name attributes that nobody scores here: it is none of `layers`.
        found = FFHQ_LAYERS.get(attribute)
        if found is None:
            return None
        # Of W codes alone there are no rows, and the whole code moves.
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
        """Refuse a generator or an attribute that the published table of layers is not for."""
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
        # A class of fewer extremes trains with what there is; a random draw is of equal numbers.
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
        """Channels of this space to leave alone for each other attribute that has a classifier."""
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
        """Gradient of what grows towards the target class, up to a positive factor a sample.

        Binary: the logit, signed. Many classes: with v = e_j - q, q the softmax over the classes
        other than j, the gradient of the log-odds of class j; log p_j has this gradient times 1 -
        p_j and p_j times p_j (1 - p_j), so the three have one unit direction, and this form does
        not vanish where p_j rounds to 1.

        Args:
            name: the attribute.
            logits: (n, R) of `LatentClassifier.forward`.
            slopes: (n, A, 16) of the same.
            target: (n,) classes.

        Returns (n, d).
        """
        classifier = self._fitted()
        own = logits[:, classifier.slices[name]]
        if own.shape[1] == 1:
            return classifier.pull_back(slopes, name, (2.0 * target - 1).to(own).unsqueeze(1))
        if name in self.ordered:
            # An ordered attribute, such as the eight views of a car, is walked through adjacent
            # classes: towards the neighbour of the class that is seen now.
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
        # Zero where every channel is masked: no move
        direction = unit_rows(gradient * ~mask)
        return walk.codes + (self.length * direction).to(walk.codes)

    # -- state ----------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        classifier = self._fitted()
        out = {"step": torch.tensor(self.length, dtype=torch.float64)}
        for k, (name, head) in enumerate(classifier.heads.items()):
            for part, tensor in zip(PARTS, head):
                out[f"head.{name}.{part}"] = tensor.clone()
            # The order of the heads, which a mapping of tensors on disk does not keep.
            out[f"place.{name}"] = torch.tensor([k, name in self.ordered])
        out |= prefixed("counts", self.counts)
        if self.tune_layers:
            out |= layers_state(self.layers)
        for name, count in self.tuned.items():
            out[f"tuned.{name}"] = torch.tensor(count)
        return out

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        places = {}
        for name, value in group(state, "place").items():
            places[name] = value.tolist()
        self.length = float(state["step"])
        heads = {}
        for name in sorted(places, key=lambda name: places[name][0]):
            heads[name] = [state[f"head.{name}.{part}"] for part in PARTS]
        self.classifier = LatentClassifier(heads)
        self.ordered = {name for name in places if places[name][1]}
        self.counts = group(state, "counts")
        self.tuned = {name: int(value) for name, value in group(state, "tuned").items()}
        if self.tune_layers:
            self.layers = load_layers(state)
