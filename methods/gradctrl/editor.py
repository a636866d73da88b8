"""GradCtrl: walk along the gradient of a small latent classifier.

The walk leaves alone the channels that other attributes depend on.
Chen et al., "Exploring Gradient-based Multi-directional Controls in GANs", 2022, eq. (3) and
Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from editbench.methods.gradctrl.exclusion import (
    FFHQ_LAYERS,
    Exclude,
    check_names,
    excluded_channels,
    parse_exclude,
    scaled_count,
)
from editbench.methods.gradctrl.latent_classifier import LatentClassifier, load_heads, train
from editbench.methods.gradctrl.tuning import choose_count
from editbench.methods.shared.layer_choice import (
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
    few_shot,
    walk_space,
)
from editbench.methods.shared.state import group, prefixed
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from editbench.base.attributes import Attributes
from editbench.base.errors import BadFile, EditbenchError, Unsupported
from editbench.base.seeding import generator
from editbench.base.validation import check_positive
from editbench.networks.generator import Generator
from editbench.walk.editor import FFHQ_W_SPREAD, Editor, FitData, FitReport, Walk, unit_rows

HELD_OUT = 0.3  # share of a class's examples that validate
PARTS = ("weight1", "bias1", "weight2", "bias2")


class GradCtrl(Editor):
    """next = codes + step * unit(masked gradient), by eq. (3) and Algorithm 1.

    Gradient and mask are both taken at the current codes, so that the path bends.

    Args:
        n_per_class: examples of each class (the paper: 30).
        selection: 'extremes', the most confident of `pool` candidates by the teacher's log-odds,
            or 'random'. The default follows the published code, which trains on the top and
            bottom 5 % of its samples.
        pool: candidates; None takes 20 for each wanted example, so that the extremes are about
            those 5 %.
        exclude: channels left alone for every other attribute, for 512 channels (in proportion
            for other widths); or target -> {other: count}; or 'ffhq', the published code's own
            table.
        tune_exclusion: choose one count out of 50..250 for each target on 30 tune samples, scored
            by the teacher.
        ties: see editbench.methods.gradctrl.exclusion.excluded_channels.
        multiclass: see editbench.methods.gradctrl.exclusion.excluded_channels.
        objective: for many classes, 'log_softmax' (also 'probability': the same unit direction)
            or 'logit', the raw row. A binary attribute always follows its logit, which is the
            direction of its probability too.
        delta: step length for StyleGAN2-FFHQ's W (the paper: 0.6).
        scale_step: scale `delta` to the spread of this space.
        epochs: of the classifiers' training, at most.
        space: 'w' or 'z'.
        heads: file of published heads, used instead of a fit; see latent_classifier.load_heads.
        head_attributes: their names, in order.
        head_signs: +1 or -1 for each, for scorers that flip an attribute.
        layers: as in Editor; or 'ffhq', the published code's own table, in proportion to the
            rows; or 'tuned', by editbench.methods.shared.layer_choice.

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
            # 'tuned' begins without ranges; `tune` enters one for each attribute.
            layers = {} if choice("layers", layers, ("ffhq", "tuned")) == "tuned" else FFHQ_LAYERS
        super().__init__(layers)
        check_positive("delta", delta)
        if n_per_class < 1 or epochs < 0:
            raise EditbenchError(
                f"n_per_class={n_per_class} must be at least 1 and epochs={epochs} at least 0"
            )
        self.n_per_class = n_per_class
        self.pool = pool or 20 * n_per_class
        self.epochs = epochs
        self.selection = choice("selection", selection, ("extremes", "random"))
        self.ties = choice("ties", ties, ("exact", "all"))
        self.multiclass = choice("multiclass", multiclass, ("max", "predicted"))
        self.objective = choice("objective", objective, ("log_softmax", "probability", "logit"))
        # The published table may name attributes nobody scores here
        self.lenient_names = isinstance(exclude, str)
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
        if not self.lenient_names:
            check_names(self.exclude, attributes.names)
        report = self._load(data) if self.head_file else self._train(data)
        report.notes["step"] = self.length
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
        """Train one small classifier for each attribute whose classes all have examples."""
        codes = data.fit.codes(self.space)
        attributes = data.attributes
        names = []
        for name in attributes.names:
            self.counts[name] = class_counts(data, name).cpu()
            if not empty_class(attributes[name], self.counts[name]):
                names.append(name)
        if not names:
            raise Unsupported("no attribute has examples of all its classes in the fit split")
        # One order for all attributes: a sample that is labelled once is labelled for all.
        order = generator(data.seed, "gradctrl", "pool").permutation(len(data.fit))
        samples = []
        classes = []
        held = []
        notes = {}
        looked = 0
        for name in names:
            chosen, labelled = few_shot(
                class_log_odds(data, name),
                attributes.labels(data.fit.logits, name),
                order,
                self.n_per_class,
                self.pool,
                self.selection == "extremes",
            )
            looked = max(looked, labelled)
            held_out = []
            for c, members in enumerate(chosen):
                # Each class is split by itself, so that both sides hold all classes.
                turn = generator(data.seed, "gradctrl", "split", name, c).permutation(len(members))
                held_out.append(torch.from_numpy(turn < int(HELD_OUT * len(members))))
                if len(members) < self.n_per_class:
                    notes[f"{name}.{attributes[name].classes[c]}"] = (
                        f"{len(members)} examples instead of {self.n_per_class}"
                    )
            samples.append(torch.from_numpy(np.concatenate(chosen)))
            sizes = torch.tensor([len(members) for members in chosen])
            classes.append(torch.repeat_interleave(torch.arange(len(chosen)), sizes))
            held.append(torch.cat(held_out))
        # Attributes differ in their number of examples: padded, with weight 0 there.
        index = pad_sequence(samples, batch_first=True)  # (A, m) positions in the fit split
        labels = pad_sequence(classes, batch_first=True)
        weights = pad_sequence([torch.ones(len(s)) for s in samples], batch_first=True)
        # Adam's step suits the spread of the paper's W; undone below
        scale = FFHQ_W_SPREAD / data.spread(self.space)
        device = codes.device
        self.classifier, trained = train(
            names,
            [attributes[name].width for name in names],
            codes[index.to(device)].float() * scale,
            labels.to(device),
            weights.to(device),
            pad_sequence(held, batch_first=True).to(device),
            data.seed,
            self.epochs,
        )
        # The heads saw scale * w: the factor goes into the first layer, and they take w itself.
        heads = {}
        for name, head in self.classifier.heads.items():
            heads[name] = (head[0] * scale, *head[1:])
        self.classifier = LatentClassifier(heads)
        return FitReport(labels=looked, notes=notes | trained)

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
        found = super().rows(attribute)
        # The published table is for 18 rows; num_ws is 0 before the generator is known.
        if self.published_layers and found and self.num_ws:
            return scale_ranges([found], self.num_ws)[0]
        return found

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        super().check(generator, attributes, attribute)
        check_tuned(self.tune_layers, generator)
        if self.published_layers and self.rows(attribute) is None:
            known = ", ".join(FFHQ_LAYERS)
            raise Unsupported(f"the published table of layers has no '{attribute}': it has {known}")
        if self.classifier is not None and attribute not in self.classifier.names:
            reason = ""
            if attribute in self.counts:
                reason = empty_class(attributes[attribute], self.counts[attribute])
            if not reason:
                known = ", ".join(self.classifier.names)
                reason = f"no latent classifier of '{attribute}': the heads are {known}"
            raise Unsupported(reason)

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
        direction = unit_rows(gradient.masked_fill(mask, 0.0))
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
