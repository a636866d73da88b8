"""GradCtrl: walk along the gradient of a small latent classifier, on channels the other attributes do not need.

Chen et al., "Exploring Gradient-based Multi-directional Controls in GANs", 2022, eq. (3) and Algorithm 1.
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
    """next = codes + step * unit(masked gradient), gradient and mask both taken at the current codes.

    Args:
        n_per_class: examples of each class (the paper: 30).
        selection: 'extremes', the most confident of `pool` candidates by the teacher's log-odds, or 'random'. The
            default follows the published code, which trains on the top and bottom 5 % of its samples.
        pool: candidates; None takes 20 for each wanted example, so that the extremes are about those 5 %.
        exclude: channels left alone for every other attribute, for 512 channels (in proportion for other widths); or
            target -> {other: count}; or 'ffhq', the published code's own table.
        tune_exclusion: choose one count out of 50..250 for each target on 30 tune samples, scored by the teacher.
        ties, multiclass: see editbench.methods.gradctrl.exclusion.excluded_channels.
        objective: for many classes, 'log_softmax' (also 'probability': the same unit direction) or 'logit', the raw
            row. A binary attribute always follows its logit, which is the direction of its probability too.
        delta, scale_step: step length for StyleGAN2-FFHQ's W (the paper: 0.6), scaled to the spread of this space.
        heads, head_attributes, head_signs: published heads instead of a fit; see latent_classifier.load_heads.
        layers: as in Editor; or 'ffhq', the published code's own table, in proportion to the rows; or 'tuned', by
            editbench.methods.shared.layer_choice.
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
        self.tune_layers, self.published_layers = layers == "tuned", layers == "ffhq"
        if isinstance(layers, str):
            layers = {} if choice("layers", layers, ("ffhq", "tuned")) == "tuned" else FFHQ_LAYERS
        super().__init__(layers)
        check_positive("delta", delta)
        if n_per_class < 1 or epochs < 0:
            raise EditbenchError(
                f"n_per_class={n_per_class} must be at least 1 and epochs={epochs} at least 0"
            )
        self.n_per_class, self.pool, self.epochs = n_per_class, pool or 20 * n_per_class, epochs
        self.selection = choice("selection", selection, ("extremes", "random"))
        self.ties = choice("ties", ties, ("exact", "all"))
        self.multiclass = choice("multiclass", multiclass, ("max", "predicted"))
        self.objective = choice("objective", objective, ("log_softmax", "probability", "logit"))
        self.lenient_names = isinstance(
            exclude, str
        )  # the published table may name attributes nobody scores here
        self.exclude, self.tune_exclusion = parse_exclude(exclude), tune_exclusion
        self.delta, self.scale_step, self.space = float(delta), scale_step, walk_space(space)
        self.unit = f"{self.space.name} units"
        self.head_file, self.head_attributes, self.head_signs = (
            heads,
            tuple(head_attributes),
            head_signs,
        )
        self.length = self.delta
        self.classifier: LatentClassifier | None = None
        self.ordered: set[str] = set()
        self.counts: dict[str, Tensor] = {}  # fit samples in each class, of attributes to be fitted
        self.tuned: dict[str, int] = {}

    # -- fit --------------------------------------------------------------------------------------------------------
    def fit(self, data: FitData) -> FitReport:
        attributes, self.tuned, self.counts = data.attributes, {}, {}
        self.length = data.step_size(self.delta, self.space) if self.scale_step else self.delta
        self.ordered = {item.name for item in attributes if item.ordered}
        if not self.lenient_names:
            check_names(self.exclude, (*attributes.names, *self.head_attributes))
        report = self._load(data) if self.head_file else self._train(data)
        report.notes["step"] = self.length
        return report

    def _load(self, data: FitData) -> FitReport:
        self.classifier = load_heads(str(self.head_file), self.head_attributes, self.head_signs)
        if self.classifier.dim != data.generator.code_dim(self.space):
            raise BadFile(
                f"{self.head_file}: heads for {self.classifier.dim} channels, but the generator has "
                f"{data.generator.code_dim(self.space)} in {self.space.name}"
            )
        for name, width in zip(self.classifier.names, self.classifier.widths):
            if name in data.attributes.names and data.attributes[name].width != width:
                raise BadFile(
                    f"{self.head_file}: head '{name}' has {width} outputs, the scorer's attribute has "
                    f"{data.attributes[name].width}"
                )
        return FitReport(notes={"heads": str(self.head_file)})

    def _train(self, data: FitData) -> FitReport:
        codes, attributes = data.fit.codes(self.space), data.attributes
        self.counts = {name: class_counts(data, name).cpu() for name in attributes.names}
        names = [
            name
            for name in attributes.names
            if not empty_class(attributes[name], self.counts[name])
        ]
        if not names:
            raise Unsupported("no attribute has examples of all its classes in the fit split")
        order = generator(data.seed, "gradctrl", "pool").permutation(len(data.fit))
        samples, classes, held, notes, looked = [], [], [], {}, 0
        for name in names:
            chosen, labelled = few_shot(
                class_log_odds(data, name),
                attributes.labels(data.fit.logits, name),
                order,
                self.n_per_class,
                self.pool,
                self.selection == "extremes",
            )
            looked, held_out = max(looked, labelled), []
            for c, members in enumerate(chosen):
                turn = generator(data.seed, "gradctrl", "split", name, c).permutation(len(members))
                held_out.append(torch.from_numpy(turn < int(HELD_OUT * len(members))))
                if len(members) < self.n_per_class:
                    notes[f"{name}.{attributes[name].classes[c]}"] = (
                        f"{len(members)} examples instead of {self.n_per_class}"
                    )
            samples.append(torch.from_numpy(np.concatenate(chosen)))
            classes.append(
                torch.repeat_interleave(
                    torch.arange(len(chosen)), torch.tensor([len(m) for m in chosen])
                )
            )
            held.append(torch.cat(held_out))
        index, labels = (
            pad_sequence(samples, batch_first=True),
            pad_sequence(classes, batch_first=True),
        )
        weights = pad_sequence([torch.ones(len(s)) for s in samples], batch_first=True)
        scale = FFHQ_W_SPREAD / data.spread(
            self.space
        )  # Adam's step suits the spread of the paper's W; undone below
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
        self.classifier = LatentClassifier(
            {name: (head[0] * scale, *head[1:]) for name, head in self.classifier.heads.items()}
        )
        return FitReport(labels=looked, notes=notes | trained)

    def tune(self, data: FitData, attribute: str) -> FitReport:
        report = FitReport()
        for wanted, choose in (
            (self.tune_layers, choose_layers),
            (self.tune_exclusion, choose_count),
        ):
            if wanted and attribute in self._fitted().names:
                labels, notes = choose(self, data, attribute)
                report = FitReport(report.labels + labels, report.notes | notes)
        return report

    # -- walk -------------------------------------------------------------------------------------------------------
    def rows(self, attribute: str) -> tuple[int, int] | None:
        found = super().rows(attribute)
        return (
            scale_ranges([found], self.num_ws)[0]
            if self.published_layers and found and self.num_ws
            else found
        )

    def check(self, generator: Generator, attributes: Attributes, attribute: str) -> None:
        super().check(generator, attributes, attribute)
        check_tuned(self.tune_layers, generator)
        if self.published_layers and self.rows(attribute) is None:
            raise Unsupported(
                f"the published table of layers has no '{attribute}': it has {', '.join(FFHQ_LAYERS)}"
            )
        if self.classifier is not None and attribute not in self.classifier.names:
            reason = (
                empty_class(attributes[attribute], self.counts[attribute])
                if attribute in self.counts
                else ""
            )
            raise Unsupported(
                reason
                or f"no latent classifier of '{attribute}': the heads are "
                f"{', '.join(self.classifier.names)}"
            )

    def _fitted(self) -> LatentClassifier:
        if self.classifier is None:
            raise EditbenchError("GradCtrl was asked to walk before it was fitted")
        return self.classifier

    def excluded(self, target: str) -> dict[str, int]:
        """Channels of this space to leave alone for each other attribute that has a classifier."""
        classifier = self._fitted()
        uniform = self.tuned.get(target, self.exclude)
        if isinstance(uniform, int):
            counts = {name: uniform for name in classifier.names if name != target}
        else:
            counts = {
                name: c
                for name, c in uniform.get(target, {}).items()
                if name in classifier.names and name != target
            }
        return {name: scaled_count(count, classifier.dim) for name, count in counts.items()}

    def gradient(self, name: str, logits: Tensor, slopes: Tensor, target: Tensor) -> Tensor:
        """Gradient (n, d), up to a positive factor a sample, of what grows towards the target class.

        Binary: the logit, signed. Many classes: with v = e_j - q, q the softmax over the classes other than j, the
        gradient of the log-odds of class j; log p_j has this gradient times 1 - p_j and p_j times p_j (1 - p_j), so
        the three have one unit direction, and this form does not vanish where p_j rounds to 1.
        """
        classifier = self._fitted()
        own = logits[:, classifier.slices[name]]
        if own.shape[1] == 1:
            return classifier.pull_back(slopes, name, (2.0 * target - 1).to(own).unsqueeze(1))
        if name in self.ordered:  # the neighbour of the class seen now, on the way to the target
            seen = own.argmax(1)
            target = torch.where(seen == target, target, seen + (target - seen).sign())
        picked = torch.nn.functional.one_hot(target, own.shape[1]).to(own)
        if self.objective != "logit":
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
        direction = unit_rows(
            gradient.masked_fill(mask, 0.0)
        )  # zero where every channel is masked: no move
        return walk.codes + (self.length * direction).to(walk.codes)

    # -- state ------------------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        classifier = self._fitted()
        out = {"step": torch.tensor(self.length, dtype=torch.float64)}
        for k, (name, head) in enumerate(classifier.heads.items()):
            out |= {f"head.{name}.{part}": tensor.clone() for part, tensor in zip(PARTS, head)}
            out[f"place.{name}"] = torch.tensor([k, name in self.ordered])
        out |= {f"counts.{name}": counts for name, counts in self.counts.items()}
        out |= layers_state(self.layers) if self.tune_layers else {}
        return out | {f"tuned.{name}": torch.tensor(count) for name, count in self.tuned.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        def group(prefix: str) -> dict[str, Tensor]:
            return {
                key.removeprefix(prefix): value
                for key, value in state.items()
                if key.startswith(prefix)
            }

        places = {name: value.tolist() for name, value in group("place.").items()}
        self.length = float(state["step"])
        self.classifier = LatentClassifier(
            {
                name: [state[f"head.{name}.{part}"] for part in PARTS]
                for name in sorted(places, key=lambda name: places[name][0])
            }
        )
        self.ordered = {name for name, (_, ordered) in places.items() if ordered}
        self.counts = group("counts.")
        self.tuned = {name: int(value) for name, value in group("tuned.").items()}
        if self.tune_layers:
            self.layers = load_layers(state)
